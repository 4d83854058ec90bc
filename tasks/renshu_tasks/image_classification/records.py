"""What every source of pictures is turned into: samples with labels, before they are split."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from renshu.errors import DataError
from renshu_tasks.image_classification.readers import Raw

_CHUNK = 64  # rows that a thread looks at before it asks for more


@dataclass
class Records:
    """The samples of one source, in a fixed order; every list has one entry a sample.

    `pictures` gives a file, encoded bytes or a PIL image for a row; or it is a uint8 tensor
    [N, C, H, W] when the source is an array. `labels` holds one name a sample, several or none
    for multi-label data. `parts` says train, val or test where the source itself does.
    """

    ids: list[str]
    labels: list[tuple[str, ...]]
    pictures: Any
    where: str
    classes: list[str] | None = None
    parts: list[str] | None = None
    groups: list[str] | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def picture(self, row: int) -> tuple[Raw, str]:
        """The picture of a row, and what a message calls it: its file, or the source and row."""
        raw = self.pictures[row]
        return raw, str(raw) if isinstance(raw, Path) else f"{self.where}, {self.ids[row]}"

    def look(self, rows: Sequence[int], at: Callable[[int], Any]) -> list[Any]:
        """`at(row)` for each of these rows; in threads where the pictures are files."""
        # a user's own data set may not bear threads
        threads = min(8, os.cpu_count() or 1) if isinstance(self.pictures, list) else 1
        chunks = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        with ThreadPoolExecutor(threads) as pool:
            found = pool.map(lambda chunk: [at(row) for row in chunk], chunks)
            return [one for chunk in found for one in chunk]

    def keep(self, rows: list[int]) -> Records:
        """The samples of these rows."""

        def chosen(column: Any) -> Any:
            return column and [column[row] for row in rows]

        return replace(
            self,
            ids=chosen(self.ids),
            labels=chosen(self.labels),
            pictures=Subset(self.pictures, rows),
            parts=chosen(self.parts),
            groups=chosen(self.groups),
        )


def as_pixels(images: Any, where: str) -> Tensor:
    """Arrays as uint8 [N, C, H, W].

    Takes [N, H, W], [N, C, H, W] or [N, H, W, C] with 1, 3 or 4 channels; integers of 0 to 255,
    uint16 (scaled by 255 / 65535) or floats in [0, 1]. Raises DataError for anything else.
    """
    values = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if values.ndim == 3:
        values = values[:, None]
    if values.ndim != 4 or 0 in values.shape:
        raise DataError(
            f"the images have the shape {list(values.shape)}",
            where=where,
            allowed="[N, H, W], [N, C, H, W] or [N, H, W, C], none of them 0",
        )
    first, last = values.shape[1] in (1, 3, 4), values.shape[3] in (1, 3, 4)
    if first == last and values.shape[1] != values.shape[3]:
        raise DataError(
            f"it is not clear which axis of {list(values.shape)} is the channel",
            where=where,
            allowed="1, 3 or 4 channels at the second or the last axis",
            mend="images.transpose(0, 3, 1, 2) puts the last axis second",
        )
    if last and not first:
        values = values.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(_bytes(values, where)))


def _bytes(values: np.ndarray, where: str) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return ((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    kind, top = values.dtype.kind, 255 if values.dtype.kind in "iu" else 1
    # written so that NaN is refused as well
    if kind not in "iuf" or not (values.min() >= 0 and values.max() <= top):
        raise DataError(
            f"the images have values of {values.dtype} outside the range that is allowed",
            where=where,
            allowed="integers of 0 to 255, uint16, or floats of 0 to 1 without NaN",
        )
    return values.astype(np.uint8) if kind in "iu" else np.rint(values * 255).astype(np.uint8)
