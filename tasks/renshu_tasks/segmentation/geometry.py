"""Where voxels lie in the patient: grids compared in millimetres, masks moved between them.

A grid is a shape and an affine [4, 4] from voxel index to millimetres (RAS+). A flat picture has
two axes and uses the first two columns of its affine. Nothing is ever moved by a computed size or
a file's name for its axes: only by the two affines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renshu.errors import DataError
from renshu_tasks.segmentation.case import IGNORE, voxel_spacing

TOLERANCE_MM = 0.1
"""So far apart two grids count as one: far above rounding in headers, far below a voxel."""

SLAB_VOXELS = 2**23
"""A mask is resampled in slabs of about so many voxels, to bound memory."""

REACH = 2
"""Voxels beyond its border that a class is felt when it is resampled: 1.5 of its B-splines."""

Affine = NDArray[np.float64]
Shape = tuple[int, ...]


def largest_displacement_mm(shape: Sequence[int], affine_a: Affine, affine_b: Affine) -> float:
    """How far the corner voxels of a grid lie apart, in mm, under one affine and the other.

    The farthest counts. Displacement is linear in the index, so no voxel inside lies farther.
    """
    corners = np.array(list(product(*((0, size - 1) for size in shape))), dtype=np.float64)
    moved = np.asarray(affine_a, np.float64) - np.asarray(affine_b, np.float64)
    distance = corners @ moved[:3, : len(shape)].T + moved[:3, 3]
    return float(np.linalg.norm(distance, axis=1).max())


def check_affine(affine: Affine, where: object) -> Affine:
    """The affine as float64 [4, 4]; raises DataError if it is none that places voxels in space."""
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise DataError(f"the affine is no finite 4 x 4 matrix:\n{affine}", where=where)
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12 or not np.allclose(affine[3], [0, 0, 0, 1]):
        raise DataError(
            f"the affine gives several voxels one place: its spacing is {voxel_spacing(affine)}",
            where=where,
            allowed="three independent axes of positive length",
            mend="mend the header's spacing; a guess would make every millimetre wrong",
        )
    return affine


def fit_mask(
    mask: NDArray[Any],
    mask_affine: Affine,
    shape: Shape,
    affine: Affine,
    *,
    where: object,
    resample: bool = False,
    tolerance_mm: float = TOLERANCE_MM,
) -> NDArray[Any]:
    """A mask on the grid of its image.

    The mask is returned as it is where both grids agree within the tolerance, resampled by
    `resample_mask` where they do not and `resample` asks for it; else DataError shows both.
    """
    apart = largest_displacement_mm(shape, mask_affine, affine)
    if mask.shape == tuple(shape) and apart <= tolerance_mm:
        return mask
    if resample:
        return resample_mask(mask, mask_affine, shape, affine)
    raise DataError(
        f"image and mask do not lie on one grid: they are up to {apart:.4g} mm apart\n"
        f"image {tuple(shape)}, affine\n{_shown(affine)}\n"
        f"mask {mask.shape}, affine\n{_shown(mask_affine)}",
        where=where,
        allowed=f"equal shapes and {tolerance_mm:g} mm",
        mend="have the mask resampled onto the image; never copy the header over: that moves it",
    )


def _shown(affine: Affine) -> str:
    return np.array2string(affine, precision=4, suppress_small=True)


def canonical_grid(shape: Shape, affine: Affine) -> tuple[Shape, Affine]:
    """The same voxels with axes in the order and direction nearest to right, front, head (RAS+)."""
    from nibabel.orientations import inv_ornt_aff, io_orientation

    orientation = io_orientation(affine)[: len(shape)]
    target = affine @ inv_ornt_aff(io_orientation(affine), (*shape, 1)[:3])
    order = np.argsort(orientation[:, 0])
    return tuple(shape[int(axis)] for axis in order), target


def spaced_grid(shape: Shape, affine: Affine, spacing: Sequence[float]) -> tuple[Shape, Affine]:
    """A grid of about another spacing, with the same axes, over exactly the same field of view.

    Numbers of voxels are whole, so its spacing is that asked for only to within half a voxel of the
    whole length; its affine tells the true one.
    """
    axes = len(shape)
    old = voxel_spacing(affine, axes)
    size = [max(1, round(n * a / b)) for n, a, b in zip(shape, old, spacing, strict=True)]
    scale = np.ones(3)
    scale[:axes] = np.array(shape) / size
    target = affine.copy()
    target[:3, :3] *= scale
    target[:3, 3] += affine[:3, :3] @ ((scale - 1) / 2)
    return tuple(size), target


def resample_image(
    image: NDArray[np.float32], affine: Affine, shape: Shape, target: Affine, *, order: int = 3
) -> NDArray[np.float32]:
    """Channels [C, ...] on another grid, by splines of an order from 0 to 5.

    Grids whose voxels coincide are only reordered; beyond the border the nearest voxel counts.
    """
    matrix, offset = _voxel_map(affine, target, len(shape))
    if _coincide(matrix, offset, shape):
        return np.stack([_reindex(one, matrix, offset, shape) for one in image])
    return np.stack(
        [
            ndimage.affine_transform(
                one, matrix, offset, shape, output=np.float32, order=order, mode="nearest"
            )
            for one in image
        ]
    )


def resample_mask(mask: NDArray[Any], affine: Affine, shape: Shape, target: Affine) -> NDArray[Any]:
    """Class numbers on another grid; beyond the mask's own is background.

    Where voxels coincide they are only reordered. Else each class becomes a smooth share (quadratic
    B-splines, which also even out the steps of a coarse mask) and the greatest wins, as it would
    among one-hot channels; but class by class, each within its own bounding box, and in slabs:
    memory does not grow with their number.
    """
    matrix, offset = _voxel_map(affine, target, len(shape))
    if _coincide(matrix, offset, shape):
        return _reindex(mask, matrix, offset, shape)
    result = np.empty(shape, mask.dtype)
    labels = list(_class_boxes(mask))
    depth = max(1, SLAB_VOXELS // max(1, math.prod(shape[1:])))
    for start in range(0, shape[0], depth):
        slab = result[start : start + depth]
        begin = np.zeros(len(shape))
        begin[0] = start
        _interpolate_classes(mask, labels, matrix, offset + matrix @ begin, slab)
    return result


def _voxel_map(affine: Affine, target: Affine, axes: int) -> tuple[Affine, Affine]:
    """Matrix [axes, axes] and offset [axes] from an index of the target to one of the source."""
    between = np.linalg.inv(affine) @ target
    return between[:axes, :axes], between[:axes, 3]


def _coincide(matrix: Affine, offset: Affine, shape: Shape) -> bool:
    """Whether every voxel of the target falls on one of the source, to a thousandth of a voxel."""
    whole = np.rint(matrix)
    once = (np.abs(whole).sum(0) == 1).all() and (np.abs(whole).sum(1) == 1).all()
    off = np.abs(matrix - whole) @ (np.array(shape) - 1) + np.abs(offset - np.rint(offset))
    return bool(once and off.max() < 1e-3)


def _reindex(values: NDArray[Any], matrix: Affine, offset: Affine, shape: Shape) -> NDArray[Any]:
    """result[j] = values[matrix @ j + offset] for a matrix that only permutes and turns axes."""
    sources = np.abs(np.rint(matrix)).argmax(0)
    moved = values.transpose(sources)
    inside, taken = [], []
    for axis, source in enumerate(sources):
        begin = round(float(offset[source]))
        if matrix[source, axis] < 0:
            moved = np.flip(moved, axis)
            begin = moved.shape[axis] - 1 - begin
        first = max(0, -begin)
        last = max(first, min(shape[axis], moved.shape[axis] - begin))
        inside.append(slice(first, last))
        taken.append(slice(first + begin, last + begin) if last > first else slice(0, 0))
    result = np.zeros(shape, values.dtype)
    result[tuple(inside)] = moved[tuple(taken)]
    return result


def _class_boxes(mask: NDArray[Any]) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Each class in the mask, and IGNORE, with its bounding box."""
    for number, box in enumerate(ndimage.find_objects(mask), 1):
        if box is not None:
            yield number, box
    if mask.min(initial=0) < 0:
        yield IGNORE, ndimage.find_objects((mask == IGNORE).view(np.int8))[0]


def _interpolate_classes(
    mask: NDArray[Any],
    labels: Sequence[tuple[int, tuple[slice, ...]]],
    matrix: Affine,
    offset: Affine,
    slab: NDArray[Any],
) -> None:
    """Fill a slab of the target, whose first voxel lies at `offset` in the mask."""
    slab[...] = 0
    best, total = np.zeros(slab.shape, np.float32), np.zeros(slab.shape, np.float32)
    back = np.linalg.inv(matrix)
    for number, box in labels:
        low = np.array([side.start for side in box])
        ends = np.array(list(product(*((side.start - REACH, side.stop + 1) for side in box))))
        reached = (ends - offset) @ back.T
        begin = np.clip(np.floor(reached.min(0)), 0, slab.shape).astype(int)
        end = np.clip(np.ceil(reached.max(0)) + 1, 0, slab.shape).astype(int)
        if (end <= begin).any():
            continue
        part = tuple(slice(a, b) for a, b in zip(begin, end, strict=True))
        share = ndimage.affine_transform(
            np.pad((mask[box] == number).astype(np.float32), REACH),
            matrix,
            offset + matrix @ begin - low + REACH,
            tuple(end - begin),
            order=2,
            prefilter=False,
        )
        total[part] += share
        better = share > best[part]
        slab[part][better] = number
        best[part][better] = share[better]
    slab[best <= 1 - total] = 0  # the background has the rest
