"""From files to a case: channels on one grid, the mask on the image, nothing guessed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from renshu.errors import DataError
from renshu_tasks.segmentation import geometry, readers
from renshu_tasks.segmentation.case import Case
from renshu_tasks.segmentation.labels import class_numbers
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.readers import Scan
from renshu_tasks.segmentation.records import Record

_LEAST_VOXELS = 8


def load_case(record: Record, options: DataOptions) -> Case:
    """Read image and mask; raises DataError naming the file for anything that does not fit.

    A mask that lies elsewhere than its image by more than `tolerance_mm` is refused, or with
    `mismatch="resample"` brought onto the image's grid.
    """
    image, scan = _image(record.images, options)
    mask = None if record.mask is None else _mask(record.mask, scan, image.shape[1:], options)
    origin = dataclasses.replace(scan.origin, files=record.images)
    return Case(
        record.id, image, scan.affine, mask, origin, record.patient or record.id, record.annotated
    )


def _image(files: tuple[Path, ...], options: DataOptions) -> tuple[NDArray[np.float32], Scan]:
    """All channels as float32 [C, …], and the first one's scan without its voxels."""
    scans = [
        readers.read_scan(
            file, max_voxels=options.max_voxels, picture_spacing=options.picture_spacing
        )
        for file in files
    ]
    first = scans[0]
    several = [scan.voxels if _is_colour(scan) else scan.voxels[None] for scan in scans]
    grid = several[0].shape[1:], first.affine
    for file, scan, voxels in zip(files[1:], scans[1:], several[1:], strict=True):
        apart = geometry.largest_displacement_mm(grid[0], scan.affine, first.affine)
        if voxels.shape[1:] != grid[0] or apart > options.tolerance_mm:
            raise DataError(
                f"the channels lie on different grids, {list(voxels.shape[1:])} voxels and"
                f" {list(grid[0])}, up to {apart:.4g} mm apart",
                where=f"{file}, {files[0]}",
                allowed=f"one shape, and corners within {options.tolerance_mm:g} mm",
                mend="resample the channels of a case onto one grid first",
            )
    image = np.concatenate(several).astype(np.float32, copy=False)
    bad = int(image.size - np.isfinite(image).sum())
    if bad:
        raise DataError(
            f"{bad:,} voxels of the image are NaN or infinite",
            where=", ".join(map(str, files)),
            allowed="finite intensities",
            mend="find what made them; a background of NaN is written as 0",
        )
    if image[0].size < _LEAST_VOXELS:
        raise DataError(
            f"the image has {image[0].size} voxels: {list(image.shape[1:])}",
            where=files[0],
            allowed=f"{_LEAST_VOXELS} or more",
        )
    return image, dataclasses.replace(first, voxels=first.voxels[:0])


def _is_colour(scan: Scan) -> bool:
    return scan.origin.kind == "picture" and scan.voxels.ndim == 3


def _mask(
    file: Path, image: Scan, shape: tuple[int, ...], options: DataOptions
) -> NDArray[np.int16]:
    """The mask int16 on the image's grid."""
    scan = readers.read_scan(
        file, max_voxels=options.max_voxels, picture_spacing=options.picture_spacing, mask=True
    )
    given = options.label_map
    mapped = None if given is None else {int(stored): number for stored, number in given.items()}
    mask = class_numbers(scan.voxels, str(file), mapped, options.ignore_label)
    return geometry.fit_mask(
        mask,
        scan.affine,
        shape,
        image.affine,
        where=file,
        resample=options.mismatch == "resample" and mask.ndim == len(shape) == 3,
        tolerance_mm=options.tolerance_mm,
    )
