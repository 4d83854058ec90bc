"""Samples of token ids, read from a mapped file, and the batches they are padded to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from renshu_tasks.text.encode import IGNORED
from renshu_tasks.text.splits import Rows


class Encoded(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows of token ids with their label and number, read from the mapped file."""

    def __init__(
        self,
        encoded: Dataset,
        rows: Rows,
        labels: np.ndarray | None,
        features: Tensor | None = None,
    ) -> None:
        names = ("input_ids", "token_type_ids", "pair_ids", "labels")
        self.columns = {n: Lists(encoded, n) for n in names if n in encoded.column_names}
        self.rows, self.labels, self.features = rows, labels, features

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = int(self.rows[index])
        if self.features is None:
            sample = {name: lists[row] for name, lists in self.columns.items()}
        else:
            sample = {"features": self.features[row].numpy()}
        if self.labels is not None:
            sample["label"] = self.labels[row]
        return sample | {"index": row}


class Lists:
    """A column of lists of numbers, read from the mapped file row by row."""

    def __init__(self, encoded: Dataset, name: str) -> None:
        self.chunks = encoded.data.table.column(name).chunks
        sizes = [len(chunk) for chunk in self.chunks]
        self.starts = np.concatenate([[0], np.cumsum(sizes)])

    def __getitem__(self, row: int) -> np.ndarray:
        """Int32 [L]."""
        number = int(np.searchsorted(self.starts, row, side="right")) - 1
        return np.array(self.chunks[number][row - int(self.starts[number])].values)


class Padding:
    """Samples → a batch, padded on the right to its longest row."""

    def __init__(self, pad: int) -> None:
        self.fill = {"input_ids": pad, "pair_ids": pad, "token_type_ids": 0, "labels": IGNORED}

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch: dict[str, Tensor] = {}
        for name in samples[0]:
            values = [sample[name] for sample in samples]
            if name in self.fill:
                batch[name], mask = _padded(values, self.fill[name])
                if name == "input_ids":
                    batch["attention_mask"] = mask
                elif name == "pair_ids":
                    batch["pair_mask"] = mask
            else:
                batch[name] = torch.from_numpy(np.asarray(values))
        return batch


def _padded(rows: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Int64 [B, L] and the mask of what is real."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    values = np.full(mask.shape, fill, dtype=np.int64)
    values[mask] = np.concatenate(rows)
    return torch.from_numpy(values), torch.from_numpy(mask.astype(np.int64))
