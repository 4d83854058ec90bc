"""From a case to what the network sees: one orientation, one spacing, one scale of intensities."""

from __future__ import annotations

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
    channels = zip(image, plan.intensities, strict=True)
    normal = np.stack([normalise(channel, how) for channel, how in channels])
    return Prepared(normal, affine, None if mask is None else np.ascontiguousarray(mask))


def normalise(channel: NDArray[np.float32], how: Intensity) -> NDArray[np.float32]:
    """One channel, float32 of any shape, with mean near 0 and deviation near 1."""
    if how.kind == "none":
        return channel
    if how.kind == "dataset":
        return (np.clip(channel, how.low, how.high) - how.mean) / np.float32(how.std)
    inside = channel[channel != 0] if how.kind == "nonzero" else channel
    if not inside.size:
        return channel
    mean, std = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    scaled = (channel - np.float32(mean)) / np.float32(std if std > 0 else 1.0)
    return np.where(channel != 0, scaled, np.float32(0)) if how.kind == "nonzero" else scaled


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
