"""Segment files: a mask and a row each, in order, one case in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from renshu.errors import DataError
from renshu_tasks.segmentation.loading import load_case
from renshu_tasks.segmentation.options import DataOptions, SegmentationOptions
from renshu_tasks.segmentation.readers import ending, stem
from renshu_tasks.segmentation.records import Record
from renshu_tasks.segmentation.writing import write_mask

if TYPE_CHECKING:
    from renshu_tasks.segmentation.module import Segmenter


@torch.no_grad()
def predict(
    module: Segmenter, files: Iterable[str | Path], options: SegmentationOptions
) -> Iterator[dict[str, Any]]:
    """One row a case: file, mask, confidence, and millilitres (mm² of a picture) of each class.

    A file is a scan, or the folder of a DICOM series; with several channels it is the first one,
    and the others lie beside it. Masks are written into `data.masks_dir`, in the space of the
    input. Raises DataError for a file that cannot be read, or has other channels than were trained.
    """
    folder = Path(options.data.masks_dir)
    folder.mkdir(parents=True, exist_ok=True)
    values = _stored_values(options.data)
    written: set[str] = set()
    for file in map(Path, files):
        images = channels_beside(file, options.data)
        name = file.name if file.is_dir() else stem(file)
        if name in written:
            raise DataError(f"two files would have the mask {name}", where=file)
        written.add(name)
        case = load_case(Record(name, images), options.data)
        wanted = len(module.plan.intensities)
        if len(case.image) != wanted or len(case.shape) != module.plan.axes:
            raise DataError(
                f"the case has {len(case.image)} channels and {len(case.shape)} axes",
                where=file,
                allowed=f"{wanted} and {module.plan.axes}, as in training",
            )
        answer = module.answer(case)
        mask = write_mask(folder / name, answer.mask, case, values=values)
        voxel = float(np.prod(case.spacing))
        unit, scale = ("ml", 1000.0) if len(case.shape) == 3 else ("mm2", 1.0)
        yield {"file": str(file), "mask": str(mask), "confidence": round(answer.confidence, 6)} | {
            f"{unit}_{label}": round(float(np.sum(answer.mask == number)) * voxel / scale, 4)
            for number, label in enumerate(module.plan.classes)
            if number
        }


def channels_beside(file: Path, options: DataOptions) -> tuple[Path, ...]:
    """The files of all channels of a case, by that of its first one."""
    if options.channels is None:
        return (file,)
    first, kind = options.channels[0], "" if file.is_dir() else ending(file)
    name = file.name.removesuffix(kind)
    if not name.endswith(first):
        raise DataError(
            f"{file.name} is not the first of the channels",
            where=file,
            allowed=f"a name that ends in {first}{kind}",
        )
    case = name.removesuffix(first)
    return tuple(file.with_name(f"{case}{channel}{kind}") for channel in options.channels)


def _stored_values(options: DataOptions) -> dict[int, int] | None:
    """Class number → the value that the user's own masks have for it."""
    if options.label_map is None:
        return None
    found: dict[int, int] = {}
    for stored, number in options.label_map.items():
        found.setdefault(number, int(stored))
    return found
