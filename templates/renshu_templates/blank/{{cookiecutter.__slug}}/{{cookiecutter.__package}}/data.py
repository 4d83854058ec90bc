"""The rows of a table and their classes: cell nuclei until config.yaml names another table."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from renshu import DataModule
from renshu.errors import DataError
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset


@dataclass(kw_only=True)
class DataOptions:
    """Where the rows come from, and how they are split and loaded.

    Attributes:
        path: .csv with a header, numbers and the class; null: 569 cell nuclei of breast tissue,
            which come with scikit-learn.
        target: column with the class.
        val_share: share of the rows on which is chosen.
        test_share: share of the rows that is measured once, at the end.
        split_seed: the same seed gives the same parts.
        batch_size: rows a step.
    """

    path: str | None = None
    target: str = "class"
    val_share: float = 0.15
    test_share: float = 0.2
    split_seed: int = 0
    batch_size: int = 32


class TableData(DataModule):
    """Rows in three parts with the same share of each class. A batch: float32 [B, F], int64 [B].

    Attributes:
        classes: names of the classes; a label is a position in this list.
        parts: numbers of the rows of "train", "val" and "test".
    """

    def __init__(self, options: DataOptions) -> None:
        super().__init__()
        self.options = options
        self.rows, names = read_table(options)
        self.classes = sorted(set(names))
        self.labels = torch.tensor([self.classes.index(name) for name in names])
        rest, test = self._split(list(range(len(names))), options.test_share)
        train, val = self._split(rest, options.val_share / (1 - options.test_share))
        self.parts = {"train": train, "val": val, "test": test}

    def _split(self, rows: Sequence[int], share: float) -> tuple[list[int], list[int]]:
        labels, seed = self.labels[list(rows)], self.options.split_seed
        kept, taken = train_test_split(rows, test_size=share, random_state=seed, stratify=labels)
        return list(kept), list(taken)

    def loader(self, part: str) -> DataLoader:
        """The batches of "train", "val" or "test"; those of training in a new order each epoch."""
        rows = self.parts[part]
        data = TensorDataset(self.rows[rows], self.labels[rows])
        return DataLoader(data, self.options.batch_size, shuffle=part == "train")

    def train_dataloader(self) -> DataLoader:
        return self.loader("train")

    def val_dataloader(self) -> DataLoader:
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        return self.loader("test")


def read_table(options: DataOptions) -> tuple[Tensor, list[str]]:
    """The numbers float32 [N, F] and the class of each row; DataError names the row at fault."""
    if options.path is None:
        found: Any = load_breast_cancer()
        names = [str(found.target_names[label]) for label in found.target]
        return torch.tensor(found.data, dtype=torch.float32), names
    with Path(options.path).open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    if not table or options.target not in table[0]:
        columns = ", ".join(table[0]) if table else "no row"
        raise DataError(f"no column {options.target!r}", where=options.path, allowed=columns)
    names = [row.pop(options.target) for row in table]
    numbers = []
    for line, row in enumerate(table, start=2):
        try:
            numbers.append([float(value) for value in row.values()])
        except (TypeError, ValueError) as error:
            raise DataError(str(error), where=f"{options.path}, line {line}") from error
    return torch.tensor(numbers), names
