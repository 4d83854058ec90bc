"""The data sets that loaders read: pictures kept in memory, or read when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from renshu.errors import DataError
from renshu_tasks.image_classification.readers import read_picture
from renshu_tasks.image_classification.records import Records

Sample = dict[str, Tensor]
_SEEDS = 2**63 - 1


class Pictures(Dataset[Sample]):
    """Samples of one part: image uint8 [C, H, W], label int64 [] or float32 [K], index int64 [].

    `index` is the row in the whole source. In training there is also `seed` int64 [], from which
    the sample's augmentation is drawn on the device.
    """

    def __init__(self, labels: Tensor, rows: Any, *, seeded: bool) -> None:
        self.rows = torch.as_tensor(rows, dtype=torch.int64)
        self.labels, self.seeded = labels[self.rows], seeded

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, number: int) -> Tensor:
        """One picture, uint8 [C, H, W]."""
        raise NotImplementedError

    def __getitem__(self, number: int) -> Sample:
        sample = {
            "image": self.image(number),
            "label": self.labels[number],
            "index": self.rows[number],
        }
        if self.seeded:
            sample["seed"] = torch.randint(_SEEDS, ())
        return sample


class PicturesInMemory(Pictures):
    """Pictures from a uint8 tensor [N, C, H, W] of the whole source; a batch is one indexing."""

    def __init__(self, images: Tensor, labels: Tensor, rows: Any, *, seeded: bool) -> None:
        super().__init__(labels, rows, seeded=seeded)
        self.images = images

    def image(self, number: int) -> Tensor:
        return self.images[self.rows[number]]

    def __getitems__(self, numbers: Sequence[int] | Tensor) -> Sample:
        """A whole batch: every entry has the batch as its first dimension."""
        return self.read_batch(numbers, torch.randint(_SEEDS, (len(numbers),)))

    def read_batch(self, numbers: Sequence[int] | Tensor, seeds: Sequence[int] | Tensor) -> Sample:
        """The same with the seeds of the samples given, below 2**63."""
        chosen = torch.as_tensor(numbers)
        rows = self.rows[chosen]
        batch = {"image": self.images[rows], "label": self.labels[chosen], "index": rows}
        if self.seeded:
            batch["seed"] = torch.as_tensor(seeds, dtype=torch.int64)
        return batch


class PicturesOnDisk(Pictures):
    """Pictures decoded when asked for, scaled to `size` (H, W)."""

    def __init__(
        self, records: Records, labels: Tensor, rows: Any, *, seeded: bool, **reading: Any
    ) -> None:
        super().__init__(labels, rows, seeded=seeded)
        self.records, self.reading = records, reading

    def image(self, number: int) -> Tensor:
        row = int(self.rows[number])
        return read(self.records, row, **self.reading)


def as_batch(batch: Any) -> Any:
    """The collate function of PicturesInMemory, whose batches are complete already."""
    return batch


def read(records: Records, row: int, **reading: Any) -> Tensor:
    """The picture of a row, decoded: uint8 [channels, H, W]."""
    return read_picture(*records.picture(row), **reading)


def read_all(records: Records, rows: Sequence[int], **reading: Any) -> Tensor:
    """The pictures of these rows, decoded: uint8 [N, channels, H, W]."""
    return torch.stack(records.look(rows, lambda row: read(records, row, **reading)))


def scaled(images: Tensor, channels: int, size: tuple[int, int]) -> Tensor:
    """Arrays uint8 [N, C, H, W] with these channels and this size, as `read_picture` makes them."""
    if images.shape[1:] == (channels, *size):
        return images
    if channels not in (1, 3):
        raise DataError(
            f"images with {channels} channels cannot be scaled",
            where="data.image_size",
            allowed="1 or 3 channels",
            mend="leave image_size out, or --data.channels 3",
        )
    several = (image.squeeze(0) if len(image) == 1 else image.permute(1, 2, 0) for image in images)
    pictures = (Image.fromarray(image.numpy()) for image in several)
    return torch.stack([read_picture(one, channels=channels, size=size) for one in pictures])


def moments(images: Iterable[Tensor]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1], exact, from uint8 [n, C, H, W]."""
    counts: Tensor | None = None
    for some in images:
        found = torch.stack(
            [torch.bincount(some[:, c].flatten(), minlength=256) for c in range(some.shape[1])]
        )
        counts = found if counts is None else counts + found
    assert counts is not None
    share = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    variance = (share * (values - mean[:, None]) ** 2).sum(1)
    return mean.tolist(), variance.sqrt().tolist()
