"""Finds the samples of a source: image folder, manifest, arrays, Hugging Face, torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset

from renshu.errors import ConfigError, DataError, near
from renshu_tasks.common.parts import PARTS, part_of
from renshu_tasks.image_classification.demo import digits_file, load_digits
from renshu_tasks.image_classification.folders import from_folder
from renshu_tasks.image_classification.labels import label_names
from renshu_tasks.image_classification.manifest import from_csv
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.records import Records, as_pixels

KINDS = "an image folder, .csv, .npz, a saved Hugging Face data set, a folder of parquet files"


def find(options: DataOptions) -> Records:
    """The samples of the source that the options name; raises DataError where there is none."""
    if options.path is None:
        images, labels = load_digits()
        return from_arrays(images, labels, where=f"embedded digits ({digits_file()})")
    if options.path.startswith("torchvision:"):
        return from_torchvision(options.path.partition(":")[2], options)
    path = Path(options.path)
    if not path.exists():
        raise DataError("the data are not there", where=path.absolute(), allowed=KINDS)
    if path.is_dir():
        return _from_directory(path, options)
    if path.suffix.lower() in (".csv", ".tsv"):
        return from_csv(path, options)
    if path.suffix.lower() == ".npz":
        return from_npz(path)
    raise DataError("the file is of no kind that can be read", where=path, allowed=KINDS)


def _from_directory(path: Path, options: DataOptions) -> Records:
    from renshu_tasks.image_classification import hugging_face

    if hugging_face.is_saved(path):
        return hugging_face.from_disk(path, options)
    if files := hugging_face.tables(path):
        return hugging_face.from_tables(path, files, options)
    return from_folder(path, options)


def from_arrays(
    images: Any,
    labels: Sequence,
    *,
    parts: Sequence[str] | None = None,
    groups: Sequence | None = None,
    where: str = "arrays",
) -> Records:
    """Arrays and their labels; see `as_pixels` for the shapes and types that are taken.

    Labels are [N] names or whole numbers, or for multi-label data [N, K] of 0 and 1, or a list
    of tuples of names.
    """
    pixels = as_pixels(images, where)
    names = label_names(labels, where)
    for what, column in (("labels", names), ("parts", parts), ("groups", groups)):
        if column is not None and len(column) != len(pixels):
            raise DataError(f"{len(pixels)} images have {len(column)} {what}", where=where)
    return Records(
        ids=[str(row) for row in range(len(pixels))],
        labels=names,
        pictures=pixels,
        where=where,
        parts=None if parts is None else [part_of(part, where) for part in parts],
        groups=None if groups is None else [str(group) for group in groups],
    )


def from_npz(path: Path) -> Records:
    """A .npz file with `images` and `labels` (and `groups`); or these with parts in the name.

    `train_images` with `train_labels` and `x_train` with `y_train` are known, the same with val
    and test. Nothing in the file is unpickled.
    """
    try:
        # opened here, because numpy leaves a file open that is no archive
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            names = set(file.files)
            if {"images", "labels"} <= names:
                groups = file["groups"] if "groups" in names else None
                return from_arrays(file["images"], file["labels"], groups=groups, where=str(path))
            pairs = [
                (part, file[x], file[y])
                for part in PARTS
                for x, y in ((f"{part}_images", f"{part}_labels"), (f"x_{part}", f"y_{part}"))
                if {x, y} <= names
            ]
    except (OSError, ValueError, TypeError, EOFError, MemoryError, BadZipFile) as error:
        raise DataError(f"the arrays cannot be read: {error}", where=path) from error
    if "train" not in [part for part, _, _ in pairs]:
        raise DataError(
            f"the file holds {', '.join(sorted(names)) or 'nothing'}",
            where=path,
            allowed="images and labels; or train_images and train_labels, the same with val, test",
        )
    return joined(
        [from_arrays(x, y, where=f"{path} ({part})") for part, x, y in pairs],
        [part for part, _, _ in pairs],
        str(path),
    )


def joined(several: list[Records], parts: list[str], where: str) -> Records:
    """Sources of several parts as one."""
    pictures = [one.pictures for one in several]
    tensors = [one for one in pictures if isinstance(one, Tensor)]
    if len({tensor.shape[1:] for tensor in tensors}) > 1:
        raise DataError("the parts' images differ in shape", where=where)
    pairs = list(zip(parts, several, strict=True))
    return Records(
        ids=[f"{part}/{name}" for part, one in pairs for name in one.ids],
        labels=[label for one in several for label in one.labels],
        pictures=torch.cat(tensors) if tensors else ConcatDataset(pictures),
        where=where,
        classes=several[0].classes,
        parts=[part for part, one in pairs for _ in one.ids],
    )


def from_dataset(dataset: Any, where: str = "data set") -> Records:
    """Any map-style data set of (picture, label); pictures are PIL images, or arrays as above."""
    if getattr(dataset, "transform", None) is not None:
        raise ConfigError(
            "the data set has a transform of its own, which would be applied before the checks",
            where=where,
            mend="pass transform=None; augmentation and normalisation are options of the task",
        )
    classes = getattr(dataset, "classes", None)
    rows = range(len(dataset))
    data = getattr(dataset, "data", None)
    found = (getattr(dataset, name, None) for name in ("targets", "labels", "_labels"))
    targets = next((column for column in found if column is not None), None)
    if targets is None:
        targets = [dataset[row][1] for row in rows]
    labels = label_names(targets, where, classes)
    if isinstance(data, np.ndarray | Tensor) and len(data) == len(dataset):
        records = from_arrays(data, labels, where=where)
    elif rows and not isinstance(dataset[0][0], Image.Image):
        images = np.stack([np.asarray(dataset[row][0]) for row in rows])
        records = from_arrays(images, labels, where=where)
    else:
        records = Records([str(row) for row in rows], labels, _Firsts(dataset), where)
    records.classes = None if classes is None else [str(name) for name in classes]
    return records


class _Firsts(Dataset):
    """The pictures of a data set of pairs."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        return self.dataset[int(index)][0]


def from_torchvision(name: str, options: DataOptions) -> Records:
    """A data set of torchvision by name, from files under `root`; fetched only when asked."""
    from torchvision import datasets

    kind = getattr(datasets, name, None) if name in datasets.__all__ else None
    taken = inspect.signature(kind).parameters if kind else {}
    if kind is None or not ({"train", "split"} & set(taken)):
        known = [one for one in datasets.__all__ if one[0].isupper()]
        raise ConfigError(
            f"torchvision has no data set {name!r} for classification with given parts",
            where="data.path",
            mend=near(name, known),
        )
    root = options.root or "data/torchvision"
    extra = {"download": options.download} if "download" in taken else {}
    several = []
    for part in ("train", "test"):
        which = {"train": part == "train"} if "train" in taken else {"split": part}
        try:
            several.append(from_dataset(kind(root, **which, **extra), f"torchvision {name} {part}"))
        except (RuntimeError, FileNotFoundError, ValueError) as error:
            raise DataError(
                f"torchvision's {name} cannot be read: {error}",
                where=Path(root).absolute(),
                mend="--data.download true, or --data.root FOLDER where it is",
            ) from error
    return joined(several, ["train", "test"], f"torchvision {name} in {root}")
