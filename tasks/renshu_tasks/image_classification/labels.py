"""Labels: from whatever a source has to names, from the names to classes, and to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renshu.errors import DataError, near
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.records import Records
from renshu_tasks.image_classification.splits import Rows


def label_names(labels: Any, where: str, classes: Sequence[str] | None = None) -> list[tuple]:
    """Labels of any kind as tuples of names, one tuple a sample."""
    if isinstance(labels, Tensor):
        labels = labels.cpu().numpy()
    if isinstance(labels, np.ndarray) and labels.ndim == 2 and labels.shape[1] > 1:
        if not np.isin(labels, (0, 1)).all():
            raise DataError("labels [N, K] are not all 0 or 1", where=where)
        return [tuple(_name(k, classes, where) for k in np.flatnonzero(row)) for row in labels]
    if isinstance(labels, np.ndarray):
        labels = labels.reshape(-1).tolist()
    return [
        tuple(_name(one, classes, where) for one in label)
        if isinstance(label, list | tuple)
        else (_name(label, classes, where),)
        for label in labels
    ]


def _name(label: Any, classes: Sequence[str] | None, where: str) -> str:
    if isinstance(label, bytes):
        label = label.decode()
    if isinstance(label, np.generic | Tensor):
        label = label.item()
    if label is None or (isinstance(label, float) and not label.is_integer()):
        raise DataError(f"the label {label} is not a whole number or a name", where=where)
    if isinstance(label, float):
        label = int(label)
    if classes is None or isinstance(label, str):
        return str(label)
    if not 0 <= int(label) < len(classes):
        raise DataError(
            f"the label {label} has no name", where=where, allowed=f"0 to {len(classes) - 1}"
        )
    return str(classes[int(label)])


def check_labels(records: Records, multi_label: bool) -> None:
    """Raises DataError that names the first picture without exactly one label, unless allowed."""
    for name, label in zip(records.ids, records.labels, strict=True):
        if not multi_label and len(label) != 1:
            raise DataError(
                f"a picture has {len(label)} labels ({', '.join(label) or 'none'})",
                where=f"{records.where}, {name}",
                allowed="one label a picture",
                mend="--data.multi_label true",
            )


def find_classes(records: Records, parts: Mapping[str, Rows], options: DataOptions) -> list[str]:
    """The names in order: as asked, else as the source has them, else sorted.

    Every class has a training picture, and no part has a label that is none of them; raises
    DataError otherwise.
    """
    labels, where = records.labels, records.where
    trained = {name for row in parts["train"] for name in labels[row]}
    for part in ("val", "test"):
        for row in parts[part]:
            for name in set(labels[row]) - trained:
                raise DataError(
                    f"the label {name!r} of the {part} part is not in the training part",
                    where=f"{where}, {records.ids[row]}",
                    allowed=", ".join(sorted(trained)),
                    mend=near(name, trained) or "add training pictures of it",
                )
    asked = options.classes
    twice = {name for name in asked or () if (asked or []).count(name) > 1}
    if asked is not None and (differ := sorted(twice | set(asked) ^ trained)):
        raise DataError(
            f"data.classes and the training part differ in {', '.join(differ)}",
            where=where,
            allowed=f"data.classes: {', '.join(asked)}",
            mend="name each class that has training pictures once, and no other",
        )
    order = asked or records.classes or _in_order(trained)
    classes = [name for name in order if name in trained]
    if len(classes) < len(order):
        records.notes.append(f"{len(order) - len(classes)} classes have no picture, left out")
    if len(classes) < 2 - options.multi_label:
        raise DataError(
            f"there is only one class ({', '.join(classes) or 'none'})",
            where=where,
            allowed="two classes or more",
        )
    return classes


def encode(labels: Sequence[tuple[str, ...]], classes: list[str], multi_label: bool) -> Tensor:
    """Int64 [N], or float32 [N, K] of 0 and 1 for multi-label data."""
    position = {name: number for number, name in enumerate(classes)}
    if not multi_label:
        return torch.tensor([position[label[0]] for label in labels])
    encoded = torch.zeros(len(labels), len(classes))
    for row, label in enumerate(labels):
        encoded[row, [position[name] for name in label]] = 1.0
    return encoded


def _in_order(names: set[str]) -> list[str]:
    """Sorted; by value if all are whole numbers, so that label 2 comes before label 10."""
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))
