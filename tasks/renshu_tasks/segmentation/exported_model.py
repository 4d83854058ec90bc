"""Runs model.onnx on whole scans: turned, resampled, normalised, window by window, and back.

Input: image float32 [1, C, *shape] as stored in the file, affine float64 [1, 4, 4] from voxel
index to millimetres (RAS+). Output: logits and probabilities float32 [1, K, *prepared], on the
grid that the network sees, and mask int16 [1, *shape] on the grid of the image. Research use, not
a medical device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from scipy import ndimage

Array = np.ndarray


def load(folder: Path) -> Callable[..., dict[str, Array]]:
    """The model as a function from named arrays to named arrays."""
    about = json.loads((Path(folder) / "model.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(
        Path(folder) / "model.onnx", providers=["CPUExecutionProvider"]
    )

    def network(patch: Array) -> Array:
        return session.run(["logits"], {"image": patch})[0]

    def run(inputs: dict[str, Array], texts: Sequence[str] = ()) -> dict[str, Array]:
        return segment(network, about, inputs["image"][0], inputs["affine"][0])

    return run


def segment(network: Any, about: dict[str, Any], image: Array, affine: Array) -> dict[str, Array]:
    """Everything between a scan [C, *shape] and its mask."""
    plan, shape = about["plan"], image.shape[1:]
    grid, placed = canonical(shape, affine)
    canonical_shape, canonical_affine = grid, placed
    if not np.allclose(_spacing(placed, len(shape)), plan["spacing"], rtol=1e-3):
        grid, placed = respaced(grid, placed, plan["spacing"])
    image = np.stack([resample(channel, affine, grid, placed, 1) for channel in image])
    image = np.stack([normalise(c, how) for c, how in zip(image, plan["intensities"], strict=True)])
    logits = slide(network, image, plan["patch"], about["overlap"], about["mirror"])
    scaled = logits / about["temperature"]
    exponents = np.exp(scaled - scaled.max(0))
    decisive = logits.copy()
    if about["threshold"] is not None:
        t = min(max(about["threshold"], 1e-6), 1 - 1e-6)
        decisive[1] -= about["temperature"] * math.log(t / (1 - t))
    found = np.stack([enlarge(one, canonical_shape) for one in decisive]).argmax(0)
    mask = resample(found.astype(np.float32), canonical_affine, shape, affine, 0)
    return {
        "logits": logits[None],
        "probabilities": (exponents / exponents.sum(0))[None],
        "mask": mask.astype(np.int16)[None],
    }


def canonical(shape: Sequence[int], affine: Array) -> tuple[tuple[int, ...], Array]:
    """The same voxels with axes nearest to right, front, head (nibabel's io_orientation)."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left, values, right = np.linalg.svd(axes, full_matrices=False)
    keep = values > values.max() * 3 * np.finfo(values.dtype).eps
    turn = left[:, keep] @ right[keep]
    full, order, flips = (*shape, 1)[:3], [], []
    for column in range(3):
        row = int(np.argmax(np.abs(turn[:, column])))
        order.append(row)
        flips.append(turn[row, column] < 0)
        turn[row] = 0
    placed = np.eye(4)
    placed[:3, 3] = affine[:3, 3]
    for column, (row, flip) in enumerate(zip(order, flips, strict=True)):
        placed[:3, row] = affine[:3, column] * (-1 if flip else 1)
        placed[:3, 3] += affine[:3, column] * (full[column] - 1) * flip
    size = tuple(full[order.index(row)] for row in range(3))
    return size[: len(shape)], placed


def respaced(
    shape: Sequence[int], affine: Array, spacing: Sequence[float]
) -> tuple[tuple[int, ...], Array]:
    """The grid over the same field of view whose spacing is nearest to the one wanted."""
    have = _spacing(affine, len(shape))
    size = [max(1, round(n * h / w)) for n, h, w in zip(shape, have, spacing, strict=True)]
    placed = affine.copy()
    for axis, (old, new) in enumerate(zip(shape, size, strict=True)):
        placed[:3, axis] *= old / new
        placed[:3, 3] += affine[:3, axis] * (old - 1) / 2 - placed[:3, axis] * (new - 1) / 2
    return tuple(size), placed


def _spacing(affine: Array, axes: int) -> Array:
    return np.linalg.norm(affine[:3, :axes], axis=0)


def resample(
    values: Array, affine: Array, shape: Sequence[int], target: Array, order: int
) -> Array:
    """Values on another grid; beyond the border the nearest voxel counts."""
    between, axes = np.linalg.inv(affine) @ target, len(shape)
    return ndimage.affine_transform(
        values, between[:axes, :axes], between[:axes, 3], tuple(shape),
        output=np.float32, order=order, mode="nearest",
    )  # fmt: skip


def normalise(channel: Array, how: dict[str, Any]) -> Array:
    """One channel as the plan says."""
    if how["kind"] == "none":
        return channel
    if how["kind"] == "dataset":
        return (np.clip(channel, how["low"], how["high"]) - how["mean"]) / np.float32(how["std"])
    inside = channel[channel != 0] if how["kind"] == "nonzero" else channel
    if not inside.size:
        return channel
    mean, std = inside.mean(dtype=np.float64), inside.std(dtype=np.float64)
    scaled = (channel - np.float32(mean)) / np.float32(std if std > 0 else 1.0)
    return np.where(channel != 0, scaled, np.float32(0)) if how["kind"] == "nonzero" else scaled


def slide(
    network: Any, image: Array, patch: Sequence[int], overlap: float, mirror: Sequence[int]
) -> Array:
    """Logits [K, *size], averaged over windows with Gaussian weights and over mirror images."""
    size = image.shape[1:]
    missing = [max(0, p - n) for n, p in zip(size, patch, strict=True)]
    sides = [(m // 2, m - m // 2) for m in missing]
    image = np.pad(image, [(0, 0), *sides]).astype(np.float32)
    starts = [_starts(n, p, overlap) for n, p in zip(image.shape[1:], patch, strict=True)]
    lines = [np.exp(-0.5 * ((np.arange(p) - (p - 1) / 2) / (0.125 * p)) ** 2) for p in patch]
    weights = np.ones(())
    for line in lines:
        weights = weights[..., None] * line
    turns = [a for n in range(len(mirror) + 1) for a in combinations([m + 2 for m in mirror], n)]
    sums, total = None, np.zeros(image.shape[1:])
    for corner in product(*starts):
        box = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        values = image[(slice(None), *box)][None]
        found = sum(
            np.flip(network(np.ascontiguousarray(np.flip(values, axes))), axes) for axes in turns
        )
        if sums is None:
            sums = np.zeros((found.shape[1], *image.shape[1:]))
        sums[(slice(None), *box)] += found[0] * (weights / len(turns))
        total[box] += weights
    inner = tuple(slice(a, a + n) for (a, _), n in zip(sides, size, strict=True))
    return (sums / total)[(slice(None), *inner)].astype(np.float32)


def _starts(size: int, patch: int, overlap: float) -> list[int]:
    step = max(1, int(patch * (1 - overlap)))
    return sorted({*range(0, size - patch, step), size - patch})


def enlarge(values: Array, shape: Sequence[int]) -> Array:
    """Linear interpolation over the same field of view (align_corners=False)."""
    for axis, target in enumerate(shape):
        size = values.shape[axis]
        if size == target:
            continue
        at = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        lower = np.floor(at).astype(int)
        share = (at - lower).reshape(-1, *(1,) * (values.ndim - axis - 1))
        upper = np.minimum(lower + 1, size - 1)
        values = np.take(values, lower, axis) * (1 - share) + np.take(values, upper, axis) * share
    return values
