"""Distances between the surfaces of two masks: what every surface figure is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]
Places = NDArray[np.intp]
Elements = tuple[Places, NDArray[np.float64]]
"""Surface elements: the grid index of each [M, axes], and its size [M]."""

REACH = 6
"""Lines within so many voxels of an element are searched one by one; see `nearest`."""

_FAR = 2**20


@dataclass(frozen=True)
class Surfaces:
    """How far two surfaces lie from each other, element by element; none of them is empty.

    Attributes:
        forth: float64 [M], mm from each element of the prediction to the nearest of the reference.
        back: float64 [N], mm from each element of the reference to the nearest of the prediction.
        forth_sizes: float64 [M]: 1 for an edge voxel, mm² (in 2-D mm) for a piece of surface.
        back_sizes: float64 [N], the same of the reference.
    """

    forth: NDArray[np.float64]
    back: NDArray[np.float64]
    forth_sizes: NDArray[np.float64]
    back_sizes: NDArray[np.float64]


def measure(
    prediction: Mask,
    reference: Mask,
    spacing: Sequence[float],
    elements: Callable[[Mask, Sequence[float]], Elements],
) -> Surfaces:
    """Distances both ways between two masks of one shape, neither of them empty."""
    (forth, forth_sizes), (back, back_sizes) = (
        elements(mask, spacing) for mask in (prediction, reference)
    )
    ways = nearest(forth, back, spacing), nearest(back, forth, spacing)
    return Surfaces(*ways, forth_sizes, back_sizes)


def nearest(points: Places, others: Places, spacing: Sequence[float]) -> NDArray[np.float64]:
    """How far the nearest of `others` is from each of `points`, float64 [M] in mm, exactly.

    Squares of the axes add up, as in a distance transform (Felzenszwalb and Huttenlocher 2012, doi
    10.4086/toc.2012.v008a019): the gap along the last axis is found once for all voxels, then the
    lines around a point are tried from near to far until none could be nearer. Surfaces that agree
    are done after a few; what is still open after REACH is left to a k-d tree.
    """
    offsets, planar, limit = _lines_around(spacing)
    first = np.minimum(points.min(0), others.min(0))
    taken = np.zeros(np.maximum(points.max(0), others.max(0)) - first + 1, np.bool_)
    taken[tuple((others - first).T)] = True
    margin = np.append(offsets.max(0), 0)
    gaps = np.pad(_gaps_along_lines(taken), np.stack([margin, margin], 1), constant_values=_FAR)
    strides = np.cumprod((1, *gaps.shape[:0:-1]))[::-1]
    start = (points - first + margin) @ strides
    gaps = gaps.ravel()
    best = np.full(len(points), np.inf)
    open_ = np.arange(len(points))
    along = float(spacing[-1])
    for step, plane in zip(offsets @ strides[:-1], planar, strict=True):
        open_ = open_[best[open_] > plane]
        if not len(open_):
            break
        found = (gaps[start[open_] + step] * along) ** 2 + plane
        best[open_] = np.minimum(best[open_], found)
    distances = np.sqrt(best)
    far = distances > limit
    if far.any():
        scale = np.asarray(spacing)
        distances[far] = KDTree(others * scale, leafsize=32).query(points[far] * scale)[0]
    return distances


def _lines_around(
    spacing: Sequence[float],
) -> tuple[Places, NDArray[np.float64], float]:
    """All lines within a distance: their offsets [S, axes - 1], squared distances, the limit."""
    across = np.asarray(spacing[:-1], np.float64)
    limit = REACH * float(np.prod(across) ** (1 / len(across)))
    reach = (limit / across).astype(int)
    offsets = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij"), -1)
    offsets = offsets.reshape(-1, len(across))
    planar = ((offsets * across) ** 2).sum(1)
    order = np.argsort(planar, kind="stable")
    order = order[planar[order] <= limit**2]
    return offsets[order], planar[order], limit


def _gaps_along_lines(taken: Mask) -> NDArray[np.int32]:
    """Voxels to the nearest taken one along the last axis; beyond any image where there is none."""
    places = np.arange(taken.shape[-1], dtype=np.int32)
    before = np.maximum.accumulate(np.where(taken, places, np.int32(-_FAR)), axis=-1)
    after = np.where(taken, places, np.int32(_FAR))[..., ::-1]
    after = np.minimum.accumulate(after, axis=-1)[..., ::-1]
    return np.minimum(places - before, after - places)


def edge_voxels(mask: Mask, spacing: Sequence[float]) -> Elements:
    """Voxels of the mask with a neighbour across a face that is outside; each counts 1.

    What lies beyond the image is outside.
    """
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(mask.ndim):
        for side in (slice(None, -2), slice(2, None)):
            place = [slice(1, -1)] * mask.ndim
            place[axis] = side
            inner &= padded[tuple(place)]
    places = np.argwhere(mask & ~inner)
    return places, np.ones(len(places))


def surface_corners(mask: Mask, spacing: Sequence[float]) -> Elements:
    """Corners between voxels through which the surface passes, with its area there in mm².

    The area is that of marching cubes for the 2 x 2 x 2 (in 2-D 2 x 2) voxels around the corner,
    after google-deepmind/surface-distance; MONAI ships its table.
    """
    from monai.metrics.utils import get_code_to_measure_table

    table, kernel = get_code_to_measure_table(tuple(spacing))
    bits = np.asarray(kernel).reshape((2,) * mask.ndim).astype(np.uint8)
    areas = np.asarray(table, dtype=np.float64)
    padded = np.pad(mask, 1).astype(np.uint8)
    code = np.zeros([size - 1 for size in padded.shape], np.uint8)
    for offset in product((0, 1), repeat=mask.ndim):
        place = tuple(
            slice(start, start + size) for start, size in zip(offset, code.shape, strict=True)
        )
        code += bits[offset] * padded[place]
    surface = (code > 0) & (code < len(areas) - 1)
    return np.argwhere(surface), areas[code[surface]]
