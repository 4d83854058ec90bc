"""Cuts patches from prepared cases: a batch is filled in one go, nothing is done sample by sample.

A patch is a view of the kept array until it is copied to its place in the batch; everything random
that follows (see augment.py) works on the whole batch, on its device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from renshu_tasks.segmentation.augment import DRAWS
from renshu_tasks.segmentation.prepare import Prepared

_CENTRES = 4000
"""Voxels of a class and case, evenly spread, that patches may be centred on."""

_SEEDS = 2**63 - 1
Batch = dict[str, Tensor]


class Patches(Dataset[Batch]):
    """Patches drawn at random from cases; which ones is a function of a sample's seed alone.

    A batch is image float32 [B, C, *patch], mask int16 [B, *patch], annotated bool [B, K],
    draws float32 [B, DRAWS] uniform in [0, 1) for the augmentation, case int64 [B].

    Args:
        cases: prepared cases at least as large as a patch, by number.
        count: how many of them there are.
        annotated: bool [cases, K].
        patch: voxels along each axis.
        length: patches an epoch.
        foreground: share of the patches that are laid around a voxel of a class above 0.
        fixed: the same patches in every epoch.
    """

    def __init__(
        self,
        cases: Any,
        count: int,
        annotated: NDArray[np.bool_],
        patch: tuple[int, ...],
        length: int,
        foreground: float,
        fixed: bool = False,
    ) -> None:
        self.cases, self.count, self.annotated = cases, count, torch.from_numpy(annotated)
        self.patch, self.length, self.foreground, self.fixed = patch, length, foreground, fixed
        centres = [centres_of(cases[number], annotated.shape[1]) for number in range(count)]
        # class → the cases that show it, with the flat positions of its voxels
        self._shown = [
            [(number, found[k]) for number, found in enumerate(centres) if k in found]
            for k in range(1, annotated.shape[1])
        ]
        self._shown = [cases for cases in self._shown if cases]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, number: int) -> Batch:
        batch = self.__getitems__([number])
        return {name: values[0] for name, values in batch.items()}

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        """A whole batch: every entry has the batch as its first dimension."""
        return self.read_batch(numbers, torch.randint(_SEEDS, (len(numbers),)).tolist())

    def read_batch(self, numbers: Sequence[int], seeds: Sequence[int]) -> Batch:
        """The same with the seeds of the samples given."""
        image = mask = None
        chosen, draws = [], np.empty((len(numbers), DRAWS), np.float32)
        for place, seed in enumerate(numbers if self.fixed else seeds):
            random = np.random.Generator(np.random.PCG64(seed))
            number, corner = self._place(random)
            prepared = self.cases[number]
            if image is None:
                channels = len(prepared.image)
                image = torch.empty(len(numbers), channels, *self.patch)
                mask = torch.empty(len(numbers), *self.patch, dtype=torch.int16)
                images, masks = image.numpy(), mask.numpy()
            box = tuple(slice(c, c + p) for c, p in zip(corner, self.patch, strict=True))
            images[place] = prepared.image[(slice(None), *box)]
            masks[place] = prepared.mask[box]
            random.random(dtype=np.float32, out=draws[place])
            chosen.append(number)
        assert image is not None and mask is not None
        cases = torch.tensor(chosen)
        return {
            "image": image,
            "mask": mask,
            "annotated": self.annotated[cases],
            "draws": torch.from_numpy(draws),
            "case": cases,
        }

    def _place(self, random: np.random.Generator) -> tuple[int, list[int]]:
        """A case, and the corner of a patch in it."""
        around = None
        if self._shown and random.random() < self.foreground:
            cases = self._shown[random.integers(len(self._shown))]
            number, voxels = cases[random.integers(len(cases))]
            shape = self.cases[number].image.shape[1:]
            around = np.unravel_index(voxels[random.integers(len(voxels))], shape)
        else:
            number = int(random.integers(self.count))
            shape = self.cases[number].image.shape[1:]
        corner = []
        for axis, (size, patch) in enumerate(zip(shape, self.patch, strict=True)):
            last = size - patch
            if around is None:
                corner.append(int(random.integers(last + 1)))
                continue
            # The voxel lies anywhere in the middle half: a class is not learnt as "the centre".
            shift = int(random.integers(patch // 4, patch - patch // 4))
            corner.append(min(max(int(around[axis]) - shift, 0), last))
        return number, corner


def centres_of(prepared: Prepared, classes: int) -> dict[int, NDArray[np.int64]]:
    """Class → flat positions of some of its voxels, for the classes above 0 that are there."""
    assert prepared.mask is not None
    flat = prepared.mask.reshape(-1)
    found = {}
    for number in range(1, classes):
        voxels = np.flatnonzero(flat == number)
        if len(voxels):
            found[number] = voxels[:: max(1, len(voxels) // _CENTRES)]
    return found


def as_batch(batch: Any) -> Any:
    """The collate function of Patches, whose batches are complete already."""
    return batch
