"""The embedded real data: the MNI152 template that ships inside nilearn.

One averaged brain of 152 people, skull-stripped, 197×233×189 voxels of 1 mm (ICBM 2009a nonlinear
symmetric; Fonov et al., NeuroImage 2011; notice of McGill University in DATA_LICENSES.md). It is
mirror-symmetric, so parts are blocks of slices along axis 1 (front), never along axis 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.common.packaged import checked, packaged
from renshu_tasks.segmentation.case import Case
from renshu_tasks.segmentation.records import Record, Source

SHA256 = {
    "t1": "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6",
    "gm": "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed",
    "wm": "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db",
}
CLASSES = ["background", "other", "grey", "white"]
BLOCKS = {"train": (0, 110), "val": (190, 233), "test": (120, 170)}
"""Slices of axis 1 by part; at least ten slices between two parts belong to none."""


def template() -> Source:
    """The template as one case a part; the network sees the T1 image only."""
    image, mask, affine = load_template()

    def load(record: Record) -> Case:
        first, last = BLOCKS[record.id]
        placed = affine.copy()
        placed[:3, 3] += affine[:3, 1] * first
        return Case(
            record.id,
            np.ascontiguousarray(image[None, :, first:last]),
            placed,
            np.ascontiguousarray(mask[:, first:last]),
            patient=record.id,
        )

    records = [Record(part, patient=part, part=part) for part in BLOCKS]
    return Source(
        records,
        load,
        "embedded MNI152 template (nilearn)",
        CLASSES,
        "mr",
        same_scale=True,
        notes=["one averaged brain, cut into blocks: the figures say nothing of other patients"],
    )


def load_template() -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.float64]]:
    """T1 float32 [197, 233, 189], classes int16, affine.

    T1 = 0 is background; inside, the class is the largest of 1 - grey - white, grey and white.
    Raises DataError if a file is not the one that was checked (SHA-256).
    """
    import nibabel

    scans = {name: nibabel.load(file) for name, file in template_files().items()}
    t1 = np.asarray(scans["t1"].dataobj, np.float32)
    # Bytes that stand for 0 to 1: whole numbers, so that equal shares stay equal.
    grey, white = (np.asarray(scans[name].dataobj, np.int16) for name in ("gm", "wm"))
    tissue = np.argmax(np.stack([255 - grey - white, grey, white]), axis=0).astype(np.int16)
    return t1, np.where(t1 > 0, tissue + 1, 0).astype(np.int16), scans["t1"].affine


def template_files() -> dict[str, Path]:
    """Where nilearn keeps T1 image and tissue maps; nothing is imported. DataError without it."""
    folder = packaged(
        "nilearn",
        "datasets/data",
        "the embedded template comes with nilearn, which is not installed",
        'pip install "renshu[demo]", or give scans of your own with --data.path',
    )
    said = "the embedded template is not the file that was checked"
    mend = "pip install --force-reinstall nilearn"
    return {
        name: checked(
            folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz", sha256, said, mend
        )
        for name, sha256 in SHA256.items()
    }
