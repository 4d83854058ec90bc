"""Sliding-window inference whose memory grows neither with the volume nor with the classes.

Windows overlap and are averaged with Gaussian weights (Isensee et al. 2021, nnU-Net, doi
10.1038/s41592-020-01008-z). The sums are kept for one column of the image at a time, and in it only
for the planes that later windows still reach: what is finished becomes class numbers at once. The
more classes, the narrower the column; windows across its border are computed again for the next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from renshu.errors import ConfigError, RunError

MEMORY = 2**30
"""Bytes of sums to keep at once, at most."""

CACHE = 2**24
"""Bytes of sums to keep where so few will do: adding within the processor's cache is fastest."""

ARGMAX_VOXELS = 2**17
"""So many voxels become class numbers at once."""

Image = Any
"""Anything with a shape (C, D, H, W) or (C, H, W) that gives an array of numbers for slices: in
memory, a memory map, or an object that reads and normalises what is asked for."""


@dataclass(frozen=True)
class _Tile:
    """A stretch of one axis: voxels start to stop, and the windows (their starts) that reach it."""

    start: int
    stop: int
    windows: tuple[int, ...]


@dataclass(frozen=True)
class _Block:
    """Weighted sums that are finished.

    Attributes:
        start: first voxel of the block along each axis.
        stop: the voxel after the last that the block answers for.
        sums: float32 [K, ...] from `start` on; where the image goes on, one voxel more than `stop`
            along each axis, for interpolation.
        factors: the sum of all windows' weights there is the product of these, [n] an axis.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    sums: Tensor
    factors: tuple[Tensor, ...]

    @property
    def means(self) -> Tensor:
        """The averaged logits, float32 [K, ...]."""
        return self.sums / self.total

    @property
    def total(self) -> Tensor:
        """The sum of all windows' weights, float32 [...]."""
        return _outer(self.factors).to(self.sums.device)


@torch.inference_mode()
def segment(
    network: Callable[[Tensor], Any],
    image: Image,
    patch: Sequence[int],
    overlap: float,
    classes: int,
    mirror_axes: Sequence[int] = (),
    *,
    shape: Sequence[int] | None = None,
    batch: int = 1,
    memory: int = MEMORY,
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """The most probable class of every voxel.

    Args:
        network: [B, C, *patch] → logits [B, K, *patch], or several of which the first counts; a
            module in evaluation mode, on whose device the sums are kept.
        image: (C, D, H, W) or (C, H, W), see Image; zeros surround one smaller than the patch.
        patch: the window.
        overlap: share of a window that the next one covers, 0 to below 1.
        classes: K.
        mirror_axes: spatial axes (0 …); every combination is mirrored, predicted and averaged.
        shape: voxels of the answer over the same field of view; None: those of the image. The
            logits are interpolated linearly, not the class numbers.
        batch: windows that the network sees at once; on one thread torch convolves a single one
            several times slower than two.
        memory: bytes of sums to keep at once; one patch of all classes is the least.

    Raises:
        ConfigError: patch, overlap, axes or the network's answer do not fit.
        RunError: a logit is NaN or infinite.
    """
    size = tuple(image.shape[1:])
    target = size if shape is None else tuple(shape)
    answer = torch.empty(target, dtype=torch.uint8 if classes <= 256 else torch.int16)
    windows = _Windows(network, image, patch, classes, mirror_axes, batch)
    for block in _blocks(windows, overlap, memory):
        places = [
            _places(*sides) for sides in zip(size, target, block.start, block.stop, strict=True)
        ]
        total = None if target == size else block.total
        _argmax(block.sums, places, total, answer[tuple(place.inside for place in places)])
    return answer.numpy()


@torch.inference_mode()
def logits(
    network: Callable[[Tensor], Any],
    image: Image,
    patch: Sequence[int],
    overlap: float,
    classes: int,
    mirror_axes: Sequence[int] = (),
) -> Tensor:
    """The averaged logits, float32 [K, D, H, W] or [K, H, W] on the CPU: all of them in memory.

    For calibration and the like, on cases that allow it; the arguments are those of `segment`.
    """
    size = tuple(image.shape[1:])
    answer = torch.empty((classes, *size))
    windows = _Windows(network, image, patch, classes, mirror_axes)
    for block in _blocks(windows, overlap, MEMORY):
        sides = zip(block.start, block.sums.shape[1:], strict=True)
        own = tuple(slice(start, start + length) for start, length in sides)
        answer[(slice(None), *own)] = block.means.cpu()
    return answer


def _blocks(windows: _Windows, overlap: float, memory: int) -> Iterator[_Block]:
    """Finished blocks that tile the image."""
    if not 0 <= overlap < 1:
        raise ConfigError(f"overlap {overlap}", allowed="from 0 to below 1")
    size, patch, classes = windows.size, windows.patch, windows.classes
    totals = [_total(n, width, overlap) for n, width in zip(size, patch, strict=True)]

    def block(start: tuple[int, ...], stop: tuple[int, ...], sums: Tensor) -> _Block:
        sides = zip(totals, start, sums.shape[1:], strict=True)
        return _Block(start, stop, sums, tuple(total[a : a + n] for total, a, n in sides))

    for column, depth in _columns(size, patch, overlap, classes, memory):
        starts = [tile.start for tile in column]
        stops = [tile.stop for tile in column]
        wide = [min(stop + 1, n) - a for a, stop, n in zip(starts, stops, size[1:], strict=True)]
        # numpy asks the system for huge pages, torch does not: four times as fast to clear
        sums = torch.from_numpy(np.zeros((classes, depth, *wide), np.float32)).to(windows.device)
        base = 0
        for first in _starts(size[0], patch[0], overlap):
            if min(first + patch[0], size[0]) > base + depth:
                done = first - base
                yield block((base, *starts), (first - 1, *stops), sums[:, :done])
                for plane in range(depth - done + 1):  # one by one, without a copy of them all
                    sums[:, plane] = sums[:, done - 1 + plane]
                sums[:, depth - done + 1 :] = 0
                base = first - 1
            reaching = list(product([first], *(tile.windows for tile in column)))
            for begin in range(0, len(reaching), windows.batch):
                windows.add(sums, (base, *starts), reaching[begin : begin + windows.batch])
        yield block((base, *starts), (size[0], *stops), sums[:, : size[0] - base])


class _Windows:
    """Predicts the image window by window, mirrored as well, with weights that fade outwards."""

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        image: Image,
        patch: Sequence[int],
        classes: int,
        mirror_axes: Sequence[int],
        batch: int = 1,
    ) -> None:
        self.size, self.patch, self.classes = tuple(image.shape[1:]), tuple(patch), classes
        _check(self.size, self.patch, mirror_axes)
        parameters = network.parameters() if isinstance(network, nn.Module) else iter(())
        self.device = next((one.device for one in parameters), torch.device("cpu"))
        self.network, self.image, self.batch = network, image, batch
        self.mirrored = [
            axes
            for count in range(1, len(mirror_axes) + 1)
            for axes in combinations([axis + 2 for axis in mirror_axes], count)
        ]
        weights = _outer([_gaussian(width) for width in patch]) / (1 + len(self.mirrored))
        self.weights = weights.to(self.device)
        self.values = torch.empty((batch, image.shape[0], *patch))

    def add(self, sums: Tensor, base: Sequence[int], windows: Sequence[Sequence[int]]) -> None:
        """Add a batch of windows, or a smaller last one, to sums that begin at `base`."""
        for window, into in zip(windows, self.values, strict=False):
            _read(self.image, window, into)
        values = self.values[: len(windows)].to(self.device)
        found = self._logits(values)
        for axes in self.mirrored:
            found = found + self._logits(values.flip(axes)).flip(axes)
        for window, one in zip(windows, found, strict=True):
            there, here = _overlap(window, self.patch, base, sums.shape[1:])
            sums[(slice(None), *there)].addcmul_(one[(slice(None), *here)], self.weights[here])

    def _logits(self, values: Tensor) -> Tensor:
        found = self.network(values)
        found = found[0] if isinstance(found, list | tuple) else found
        expected = (len(values), self.classes, *self.patch)
        if found.shape != expected:
            raise ConfigError(
                f"the network answers {tuple(found.shape)} to {tuple(values.shape)}",
                allowed=str(expected),
            )
        return found.float()


def _check(size: tuple[int, ...], patch: tuple[int, ...], mirror_axes: Sequence[int]) -> None:
    if len(patch) != len(size) or min(patch) < 1:
        said = f"a patch {patch} for an image of {len(size)} axes"
        raise ConfigError(said, allowed=f"{len(size)} whole numbers of 1 or more")
    if len(set(mirror_axes)) != len(mirror_axes) or not set(mirror_axes) <= set(range(len(size))):
        raise ConfigError(f"mirror axes {tuple(mirror_axes)}", allowed=f"of 0 to {len(size) - 1}")


def _starts(size: int, patch: int, overlap: float) -> list[int]:
    """First voxels of the windows along an axis, the last moved back to end with the image.

    A window wider than the image starts before it, so that the image lies in its middle.
    """
    if patch >= size:
        return [-((patch - size) // 2)]
    step = max(1, int(patch * (1 - overlap)))
    return [*range(0, size - patch, step), size - patch]


def _columns(
    size: tuple[int, ...], patch: tuple[int, ...], overlap: float, classes: int, memory: int
) -> Iterator[tuple[tuple[_Tile, ...], int]]:
    """The columns along the first axis, and how many planes of them to keep, within the memory."""
    starts = [_starts(n, width, overlap) for n, width in zip(size, patch, strict=True)][1:]
    counts = [len(windows) for windows in starts]

    def tiles() -> list[list[_Tile]]:
        sides = zip(size[1:], patch[1:], starts, counts, strict=True)
        return [_tiles(n, width, windows, count) for n, width, windows, count in sides]

    def plane() -> int:
        wide = (max(tile.stop - tile.start for tile in axis) + 1 for axis in tiles())
        return 4 * classes * math.prod(wide)

    least = min(size[0], patch[0] + 1)
    while plane() * least > memory and max(counts) > 1:
        widest = counts.index(max(counts))
        counts[widest] = -(-counts[widest] // 2)
    depth = min(size[0], max(least, min(memory, CACHE) // plane()))
    for column in product(*tiles()):
        yield column, depth


def _tiles(size: int, patch: int, windows: list[int], count: int) -> list[_Tile]:
    """An axis cut just before every `count`-th window, so that its tile alone needs that one."""
    borders = [0, *(max(1, window - 1) for window in windows[count::count]), size]
    return [
        _Tile(start, stop, tuple(w for w in windows if w < stop + 1 and w + patch > start))
        for start, stop in pairwise(borders)
    ]


def _gaussian(width: int) -> Tensor:
    """Weights along an axis, with a deviation of an eighth of the window; 1 in the middle."""
    places = torch.arange(width, dtype=torch.float32) - (width - 1) / 2
    return torch.exp(-0.5 * (places / (0.125 * width)) ** 2)


def _outer(factors: Sequence[Tensor]) -> Tensor:
    """Product of one factor an axis: [a], [b], [c] → [a, b, c]."""
    result = torch.ones(())
    for factor in factors:
        result = result[..., None] * factor
    return result


def _total(size: int, patch: int, overlap: float) -> Tensor:
    """The sum of all windows' weights along an axis: that of the volume is their product."""
    total = torch.zeros(size)
    for start in _starts(size, patch, overlap):
        (there,), (here,) = _overlap([start], [patch], [0], [size])
        total[there] += _gaussian(patch)[here]
    return total


def _overlap(
    window: Sequence[int], patch: Sequence[int], base: Sequence[int], size: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a window and a block meet: as slices of the block, and of the window."""
    there, here = [], []
    for first, width, start, length in zip(window, patch, base, size, strict=True):
        low, high = max(first, start), min(first + width, start + length)
        there.append(slice(low - start, high - start))
        here.append(slice(low - first, high - first))
    return tuple(there), tuple(here)


def _read(image: Image, window: Sequence[int], into: Tensor) -> None:
    """Put the image in a window into [C, *patch], with zeros beyond its border."""
    inside, place = _overlap(window, into.shape[1:], [0] * (into.ndim - 1), image.shape[1:])
    values = into.numpy()
    if any(side.stop - side.start < n for side, n in zip(place, values.shape[1:], strict=True)):
        values.fill(0)
    values[(slice(None), *place)] = image[(slice(None), *inside)]


@dataclass(frozen=True)
class _Places:
    """Voxels of the answer along one axis that a block answers for.

    Attributes:
        inside: them, as a slice of the answer.
        lower: int64 [n], the voxel of the block before each.
        share: float32 [n], how near each lies to the one after it; None: all are voxels.
    """

    inside: slice
    lower: Tensor
    share: Tensor | None

    def part(self, begin: int, length: int) -> _Places:
        """Some of them."""
        share = None if self.share is None else self.share[begin : begin + length]
        return _Places(self.inside, self.lower[begin : begin + length], share)


def _places(size: int, target: int, start: int, stop: int) -> _Places:
    """As align_corners=False of torch's interpolate: both grids cover the same field of view."""
    if size == target:
        return _Places(slice(start, stop), torch.arange(stop - start), None)
    at = ((torch.arange(target, dtype=torch.float64) + 0.5) * size / target - 0.5).clamp(
        0, size - 1
    )
    lower = at.floor().long()
    mine = ((lower >= start) & (lower < stop)).nonzero()[:, 0]
    first = int(mine[0]) if len(mine) else 0
    share = (at - lower)[mine].float()
    return _Places(slice(first, first + len(mine)), lower[mine] - start, share)


def _argmax(sums: Tensor, places: Sequence[_Places], total: Tensor | None, answer: Tensor) -> None:
    """Put the class numbers of a block into its part of the answer.

    A few planes and one class at a time: that stays in the processor's cache, where an argmax over
    all would make 64-bit numbers of the whole block. `total` are the weights to divide by; where
    voxels are not mixed, they decide nothing.
    """
    planes = max(1, ARGMAX_VOXELS // max(1, math.prod(answer.shape[1:])))
    for begin in range(0, len(answer), planes):
        part = answer[begin : begin + planes]
        here = [places[0].part(begin, len(part)), *places[1:]]
        best = _interpolate(sums[0] if total is None else sums[0] / total, here)
        found = torch.zeros(part.shape, device=sums.device)
        better = torch.empty_like(found)  # as float32: comparing into bool is far slower
        for number, one in enumerate(sums[1:], 1):
            value = _interpolate(one if total is None else one / total, here)
            torch.gt(value, best, out=better)
            found = torch.maximum(found, better.mul_(number))
            best = torch.maximum(best, value)
        if not torch.isfinite(best.sum()):
            raise RunError(
                "the network answers NaN or infinite logits",
                mend="look for NaN in the image, and for a training that diverged",
            )
        part.copy_(found)


def _interpolate(values: Tensor, places: Sequence[_Places]) -> Tensor:
    """One class of a block at the places of the answer."""
    for axis, place in enumerate(places):
        if place.share is None:
            values = values.narrow(axis, int(place.lower[0]), len(place.lower))
            continue
        lower = place.lower.to(values.device)
        upper = (lower + 1).clamp(max=values.shape[axis] - 1)
        share = place.share.to(values.device).view([-1] + [1] * (values.ndim - axis - 1))
        values = torch.lerp(
            values.index_select(axis, lower), values.index_select(axis, upper), share
        )
    return values
