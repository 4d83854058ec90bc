"""From a case to what the network sees: one orientation, one spacing, one scale of intensities."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.segmentation import geometry
from renshu_tasks.segmentation.case import IGNORE, Case, voxel_spacing
from renshu_tasks.segmentation.plan import Intensity, Plan

_SAME = 1e-3
"""Relative difference of spacing below which a case is not resampled."""


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it.

    Attributes:
        image: float32 [C, *shape], axes right, front, head (rows, columns of a picture).
        affine: float64 [4, 4], voxel index → millimetres (RAS+).
        mask: int16 [*shape]; None without truth.
    """

    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.int16] | None = None


def prepare(case: Case, plan: Plan) -> Prepared:
    """Turn to the closest RAS+ orientation, resample to the plan's spacing, normalise."""
    shape, affine = geometry.canonical_grid(case.shape, case.affine)
    if not np.allclose(voxel_spacing(affine, plan.axes), plan.spacing, rtol=_SAME):
        # Voxels of whole number over the same field of view: what inference turns back exactly.
        size, _ = geometry.spaced_grid(shape, affine, plan.spacing)
        sides = zip(shape, voxel_spacing(affine, plan.axes), size, strict=True)
        shape, affine = geometry.spaced_grid(shape, affine, [n * mm / m for n, mm, m in sides])
    image = geometry.resample_image(case.image, case.affine, shape, affine, order=1)
    mask = case.mask
    if mask is not None:
        mask = geometry.resample_mask(mask, case.affine, shape, affine)
    normal = np.empty(image.shape, np.float32)
    for channel, how, into in zip(image, plan.intensities, normal, strict=True):
        normalise(channel, how, into)
    return Prepared(normal, affine, None if mask is None else np.ascontiguousarray(mask))


def normalise(channel: NDArray[np.float32], how: Intensity, into: NDArray[np.float32]) -> None:
    """Write one channel, float32 of any shape, with mean near 0 and deviation near 1.

    Plane by plane: a volume may be so large that memory holds it twice, but not four times.
    """
    if how.kind == "dataset":
        for plane, out in zip(channel, into, strict=True):
            out[...] = (np.clip(plane, how.low, how.high) - how.mean) / np.float32(how.std)
        return
    mean, std = (0.0, 1.0) if how.kind == "none" else _moments(channel, how.kind == "nonzero")
    for plane, out in zip(channel, into, strict=True):
        out[...] = (plane - np.float32(mean)) / np.float32(std)
        if how.kind == "nonzero":
            out[plane == 0] = 0


def _moments(channel: NDArray[np.float32], nonzero: bool) -> tuple[float, float]:
    """Mean and standard deviation, in float64; 0 and 1 where there is nothing to measure."""

    def total(of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> float:
        planes = (plane[plane != 0] if nonzero else plane for plane in channel)
        return float(sum(of(plane.astype(np.float64)).sum() for plane in planes))

    count = total(np.ones_like)
    if not count:
        return 0.0, 1.0
    mean = total(np.positive) / count
    std = math.sqrt(total(lambda values: (values - mean) ** 2) / count)
    return mean, std or 1.0


def padded(prepared: Prepared, patch: tuple[int, ...]) -> Prepared:
    """At least as large as a patch: 0 around the image, IGNORE around the mask, on both sides."""
    missing = [max(0, p - n) for p, n in zip(patch, prepared.image.shape[1:], strict=True)]
    if not any(missing):
        return prepared
    sides = [(m // 2, m - m // 2) for m in missing]
    affine = prepared.affine.copy()
    axes = len(patch)
    affine[:3, 3] -= affine[:3, :axes] @ np.array([before for before, _ in sides])
    mask = prepared.mask
    return Prepared(
        np.pad(prepared.image, [(0, 0), *sides]),
        affine,
        None if mask is None else np.pad(mask, sides, constant_values=IGNORE),
    )
