"""Finds the cases of a source: image and mask folders, raw nnU-Net, CSV table, the template."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from renshu.errors import ConfigError, DataError
from renshu_tasks.common.files import inside
from renshu_tasks.common.parts import PARTS
from renshu_tasks.segmentation.loading import load_case
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.privacy import safe_id
from renshu_tasks.segmentation.readers import NIFTI, PICTURES, ending, stem
from renshu_tasks.segmentation.records import Record, Source

_KINDS = "a folder with images/ and labels/ or masks/, a raw nnU-Net folder, a .csv table"
_MASKS = ("labels", "masks")
_SHOWN = 5


def find(options: DataOptions) -> Source:
    """The cases of the source that the options name; raises DataError where there is none."""
    if options.path is None:
        from renshu_tasks.segmentation.demo import template

        return template()
    path = Path(options.path)
    if not path.exists():
        raise DataError("the data are not there", where=path.absolute(), allowed=_KINDS)
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        from renshu_tasks.segmentation.manifest import from_csv

        return _finished(from_csv(path, options), options)
    if not path.is_dir():
        raise DataError("the file is of no kind that can be read", where=path, allowed=_KINDS)
    if (path / "dataset.json").is_file() and (path / "imagesTr").is_dir():
        return _finished(from_nnunet(path, options), options)
    return _finished(from_folders(path, options), options)


def _finished(source: Source, options: DataOptions) -> Source:
    """With patients, and without a patient's name in the name of a case."""
    source = with_patients(source, options)
    records = [
        dataclasses.replace(
            record,
            id=safe_id(record.id, series),
            patient=safe_id(record.patient or record.id, series),
        )
        for record in source.records
        for series in [record.images[0] if record.images[0].is_dir() else None]
    ]
    return dataclasses.replace(source, records=records)


def from_folders(path: Path, options: DataOptions) -> Source:
    """images/ beside labels/ or masks/; or the same in train/, val/ and test/.

    A mask has the name of its image; with `channels` the images of a case are the case's name and
    each ending. Raises DataError for an image without its mask, or the reverse.
    """
    parts = [part for part in PARTS if (path / part / "images").is_dir()]
    records = []
    for part in parts or [None]:
        folder = path / part if part else path
        found = next((folder / name for name in _MASKS if (folder / name).is_dir()), None)
        if found is None or not (folder / "images").is_dir():
            raise DataError("images and masks are not there", where=folder, allowed=_KINDS)
        cases = _cases(folder / "images", options.channels, options)
        prefix = f"{part}/" if part else ""
        records += _paired(cases, found, part, prefix)
    return Source(records, partial(load_case, options=options), str(path), options.classes)


def from_nnunet(path: Path, options: DataOptions) -> Source:
    """A raw data set of nnU-Net: dataset.json, imagesTr/, labelsTr/ and maybe imagesTs/, labelsTs/.

    The label of the name "ignore" is the ignored region (nnU-Net v2, documentation/dataset_format).
    Channels are numbered _0000, _0001 …
    """
    meta = _dataset_json(path / "dataset.json")
    channels = meta.get("channel_names") or meta.get("modality") or {"0": ""}
    classes, ignore = _nnunet_classes(meta.get("labels"), path / "dataset.json")
    if options.ignore_label is None:
        options = dataclasses.replace(options, ignore_label=ignore)
    endings = [f"_{int(number):04d}" for number in channels]
    records = []
    for images, masks, part in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
        if (path / images).is_dir() and (path / masks).is_dir():
            cases = _cases(path / images, endings, options)
            records += _paired(cases, path / masks, part)
    kinds = {str(name).lower() for name in channels.values()}
    return Source(
        records,
        partial(load_case, options=options),
        str(path),
        options.classes or classes,
        modality="ct" if kinds == {"ct"} else None,
        same_scale=kinds == {"ct"},
    )


def with_patients(source: Source, options: DataOptions) -> Source:
    """The source with `patient_pattern` applied; raises ConfigError where a case does not match."""
    if options.patient_pattern is None:
        return source
    try:
        pattern = re.compile(options.patient_pattern)
    except re.error as error:
        raise ConfigError(
            f"this is no regular expression: {error}", where="data.patient_pattern"
        ) from error
    records = []
    for record in source.records:
        match = pattern.search(record.id.removeprefix(f"{record.part}/"))
        if match is None or not match.groups():
            raise ConfigError(
                f"the pattern {options.patient_pattern!r} finds no patient in {record.id!r}",
                where="data.patient_pattern",
                allowed="a pattern with one group that matches every case's name",
                mend=r"such as '^(sub-\d+)_'",
            )
        records.append(dataclasses.replace(record, patient=match[1]))
    return dataclasses.replace(source, records=records)


def _cases(
    folder: Path, channels: list[str] | None, options: DataOptions
) -> dict[str, tuple[Path, ...]]:
    """Case → its images, one a channel, sorted by name. A folder is one DICOM series."""
    files = {_name(path): path for path in _scans(folder, options)}
    if channels is None:
        return {name: (path,) for name, path in files.items()}
    cases: dict[str, dict[int, Path]] = {}
    for name, path in files.items():
        number = next((n for n, end in enumerate(channels) if name.endswith(end)), None)
        if number is None:
            raise DataError(
                f"the image {path.name} ends in none of the channels",
                where=folder,
                allowed=", ".join(channels),
            )
        cases.setdefault(name.removesuffix(channels[number]), {})[number] = path
    for name, found in cases.items():
        if missing := [end for n, end in enumerate(channels) if n not in found]:
            raise DataError(f"{name} lacks the channel {missing[0]}", where=folder)
    return {name: tuple(found[n] for n in sorted(found)) for name, found in cases.items()}


def _scans(folder: Path, options: DataOptions) -> Iterable[Path]:
    """What can be read, sorted; refuses links out of the folder and names that are there twice."""
    seen: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or ending(path) in NIFTI + PICTURES):
            continue
        if not options.allow_outside and not inside(folder, path):
            raise DataError(
                f"{path.name} is a link to a file outside", where=folder,
                mend="--data.allow_outside true, if you trust it",
            )  # fmt: skip
        twin = seen.setdefault(_name(path), path)
        if twin is not path:
            raise DataError(f"{twin.name} and {path.name} are one name", where=folder)
        yield path


def _name(path: Path) -> str:
    return path.name if path.is_dir() else stem(path)


def _paired(
    cases: dict[str, tuple[Path, ...]], folder: Path, part: str | None, prefix: str = ""
) -> list[Record]:
    """Images with their masks; raises DataError for what has no partner, or where there is none."""
    masks = {
        stem(path): path
        for path in sorted(folder.iterdir())
        if path.is_file() and ending(path) in NIFTI + PICTURES
    }
    if not cases:
        raise DataError("there is no image", where=folder.parent, allowed=_KINDS)
    for what, alone in (
        ("image without its mask", sorted(cases.keys() - masks.keys())),
        ("mask without its image", sorted(masks.keys() - cases.keys())),
    ):
        if alone:
            more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
            raise DataError(
                f"{what}: {', '.join(alone[:_SHOWN])}{more}",
                where=folder,
                allowed="a mask of the same name for every image",
                mend="add the missing file, or take the other one away",
            )
    return [Record(prefix + name, images, masks[name], part=part) for name, images in cases.items()]


def _dataset_json(file: Path) -> dict[str, Any]:
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"dataset.json cannot be read: {error}", where=file) from error
    if not isinstance(meta, dict):
        raise DataError("dataset.json holds no names and values", where=file)
    return meta


def _nnunet_classes(labels: Any, file: Path) -> tuple[list[str], int | None]:
    """Class names by number, and the number of the ignored region; both formats of nnU-Net."""
    try:
        if all(str(key).isdecimal() for key in labels):  # version 1: number → name
            labels = {name: int(number) for number, name in labels.items()}
        numbers = {str(name): int(number) for name, number in labels.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            "the labels are not a number each",
            where=f"{file}, labels",
            allowed='{"background": 0, "name": 1, …}; regions of several labels are not read',
        ) from error
    ignore = numbers.pop("ignore", None)
    names = sorted(numbers, key=lambda name: numbers[name])
    if [numbers[name] for name in names] != list(range(len(names))) or len(names) < 2:
        raise DataError(
            f"the labels are numbered {', '.join(map(str, sorted(numbers.values())))}",
            where=f"{file}, labels",
            allowed="0 (background) to n without a gap",
        )
    return names, ignore
