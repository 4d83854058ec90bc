"""Segment files: a mask and a row each, in order, one case in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation.loading import load_case
from renshu_tasks.segmentation.options import DataOptions, SegmentationOptions
from renshu_tasks.segmentation.privacy import safe_id
from renshu_tasks.segmentation.readers import PICTURES, ending, stem
from renshu_tasks.segmentation.records import Record
from renshu_tasks.segmentation.writing import mask_ending, write_mask

if TYPE_CHECKING:
    from renshu_tasks.segmentation.module import Segmenter


@torch.no_grad()
def predict(
    module: Segmenter, files: Iterable[str | Path], options: SegmentationOptions
) -> Iterator[dict[str, Any]]:
    """One row a case: file, mask, confidence, and millilitres (mm² of a picture) of each class.

    A file is a scan, or the folder of a DICOM series; with several channels it is the first one,
    and the others lie beside it. Masks are written into `data.masks_dir`, in the space of the
    input; a series whose path tells the patient appears as a hash (see `privacy`). Raises
    ConfigError before the first case if a mask would take the place of a file that is there, and
    DataError for a file that cannot be read, or has other channels than were trained.
    """
    cases = [_Wanted.of(Path(file), options.data) for file in files]
    _refuse_overwriting(cases)
    Path(options.data.masks_dir).mkdir(parents=True, exist_ok=True)
    values = _stored_values(options.data)
    for file, images, target in cases:
        name = stem(target)
        case = load_case(Record(name, images), options.data)
        wanted = len(module.plan.intensities)
        if len(case.image) != wanted or len(case.shape) != module.plan.axes:
            raise DataError(
                f"the case has {len(case.image)} channels and {len(case.shape)} axes",
                where=file,
                allowed=f"{wanted} and {module.plan.axes}, as in training",
            )
        answer = module.answer(case)
        mask = write_mask(target.with_name(name), answer.mask, case, values=values)
        voxel = float(np.prod(case.spacing))
        unit, scale = ("ml", 1000.0) if len(case.shape) == 3 else ("mm2", 1.0)
        shown = safe_id(str(file), _series(file))
        yield {"file": shown, "mask": str(mask), "confidence": round(answer.confidence, 6)} | {
            f"{unit}_{label}": round(float(np.sum(answer.mask == number)) * voxel / scale, 4)
            for number, label in enumerate(module.plan.classes)
            if number
        }


class _Wanted(NamedTuple):
    """What is asked for: the file as it was named, those of all channels, and the mask's."""

    file: Path
    images: tuple[Path, ...]
    target: Path

    @classmethod
    def of(cls, file: Path, options: DataOptions) -> _Wanted:
        name = safe_id(file.name if file.is_dir() else stem(file), _series(file))
        suffix = mask_ending(file, picture=ending(file) in PICTURES and not file.is_dir())
        return cls(file, channels_beside(file, options), Path(options.masks_dir, name + suffix))


def _refuse_overwriting(cases: list[_Wanted]) -> None:
    """Raise ConfigError if a mask would replace a scan, or whatever else is there."""
    inputs = {image.resolve() for case in cases for image in case.images}
    names: set[str] = set()
    for case in cases:
        if stem(case.target) in names:
            raise DataError(f"two files would have the mask {stem(case.target)}", where=case.target)
        names.add(stem(case.target))
        if case.target.exists():
            own = case.target.resolve() in inputs
            raise ConfigError(
                "the mask would overwrite " + ("an input" if own else "a file that is there"),
                where=case.target,
                allowed="names that are free",
                mend="--data.masks_dir with another folder",
            )


def _series(file: Path) -> Path | None:
    return file if file.is_dir() else None


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
