"""Distances between the surfaces of two masks: what every surface figure is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]
Elements = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Surface elements: their places [M, axes] in mm, and the size of each [M]."""


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
    """Distances both ways between two masks of one shape, neither of them empty.

    A k-d tree over the elements: a surface has some thousand, its box some hundred thousand
    voxels, and a distance transform of the box took twice as long.
    """
    (forth, forth_sizes), (back, back_sizes) = (
        elements(mask, spacing) for mask in (prediction, reference)
    )
    return Surfaces(_nearest(forth, back), _nearest(back, forth), forth_sizes, back_sizes)


def _nearest(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    return KDTree(others, leafsize=32).query(points)[0]


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
    points = np.argwhere(mask & ~inner) * np.asarray(spacing)
    return points, np.ones(len(points))


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
    return np.argwhere(surface) * np.asarray(spacing), areas[code[surface]]
