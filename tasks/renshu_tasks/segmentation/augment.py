"""Augmentation of whole batches on their device: one affine resampling, then the intensities.

Every decision is a function of the sample's own draws, so a patch does not depend on batch size,
ranks, workers or a resume; only the noise comes from the device's generator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from renshu_tasks.segmentation.case import IGNORE

DRAWS = 16
"""Uniform numbers that a sample brings."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """How strongly to augment. All ranges are symmetric around "unchanged".

    Attributes:
        rotation: degrees about every axis.
        scale: 0.1 is a size between 1/1.1 and 1.1.
        shift: share of the patch's side.
        contrast: 0.2 is a contrast between 1/1.2 and 1.2.
        brightness: in deviations of the image.
        gamma: 0.2 is an exponent between 1/1.2 and 1.2.
        noise: highest deviation of Gaussian noise, in deviations of the image.
    """

    rotation: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0


LEVELS = {
    "none": Level(),
    "light": Level(contrast=0.2, brightness=0.1, noise=0.1),
    "standard": Level(
        rotation=15, scale=0.2, shift=0.05, contrast=0.25, brightness=0.1, gamma=0.3, noise=0.1
    ),
}
"""What `training.augment` names; options.py describes them."""


def augment(
    image: Tensor,
    mask: Tensor,
    draws: Tensor,
    level: Level,
    spacing: Sequence[float],
    mirror: Sequence[int] = (),
) -> tuple[Tensor, Tensor]:
    """Turned, scaled, mirrored and re-lit patches.

    Args:
        image: float32 [B, C, *patch].
        mask: int [B, *patch]; what comes in from outside is IGNORE.
        draws: float32 [B, DRAWS] in [0, 1).
        level: how strongly.
        spacing: millimetres a voxel: a turn is one in the patient, not in voxels.
        mirror: axes along which half of the patches are mirrored.
    """
    spatial = draws[:, :9]
    if level.rotation or level.scale or level.shift:
        maps = affine_maps(spatial, level, image.shape[2:], spacing)
        image, mask = warp(image, mask, maps)
    for axis in mirror:
        turned = draws[:, 13 + axis] < 0.5
        image[turned], mask[turned] = image[turned].flip(axis + 2), mask[turned].flip(axis + 1)
    return relight(image, draws[:, 9:13], level), mask


def affine_maps(
    draws: Tensor, level: Level, shape: Sequence[int], spacing: Sequence[float]
) -> Tensor:
    """Draws [B, 9] → float32 [B, n, n + 1] as `F.affine_grid` takes: turns in millimetres."""
    n = len(shape)
    signed = draws * 2 - 1
    angles = signed[:, :3] * math.radians(level.rotation)
    linear = torch.eye(n, device=draws.device).expand(len(draws), n, n)
    # The planes of a turn, in affine_grid's order of axes: the last axis of the patch comes first.
    for plane, (a, b) in enumerate([(0, 1), (0, 2), (1, 2)][: 1 if n == 2 else 3]):
        cos, sin = angles[:, plane].cos(), angles[:, plane].sin()
        turn = torch.eye(n, device=draws.device).repeat(len(draws), 1, 1)
        turn[:, a, a], turn[:, a, b], turn[:, b, a], turn[:, b, b] = cos, -sin, sin, cos
        linear = linear @ turn
    linear = linear * ((1 + level.scale) ** signed[:, 3])[:, None, None]
    extent = torch.tensor(
        [size * step for size, step in zip(shape[::-1], spacing[::-1], strict=True)],
        device=draws.device,
    )
    linear = linear * extent / extent[:, None]
    return torch.cat([linear, 2 * level.shift * signed[:, 4 : 4 + n, None]], dim=2)


def warp(image: Tensor, mask: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """One resampling of a batch: image by (tri)linear interpolation, mask by the nearest voxel."""
    grid = _grid(maps, image.shape[2:])
    image = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
    # What lies outside becomes 0 here, so IGNORE is made 0.
    shifted = (mask - IGNORE).to(image.dtype)[:, None]
    found = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return image, found[:, 0].to(mask.dtype) + IGNORE


def _grid(maps: Tensor, shape: Sequence[int]) -> Tensor:
    """What `F.affine_grid` gives, [B, *shape, n], summed from one vector an axis."""
    n = len(shape)
    grid = maps[:, :, n].view(-1, *(1,) * n, n)
    for axis, size in enumerate(shape):
        places = (torch.arange(size, device=maps.device) * 2 + 1) / size - 1
        term = places[:, None] * maps[:, None, :, n - 1 - axis]
        grid = grid + term.view(-1, *(size if a == axis else 1 for a in range(n)), n)
    return grid


def relight(image: Tensor, draws: Tensor, level: Level) -> Tensor:
    """Gamma, contrast, brightness and noise; `draws` [B, 4]."""
    column = (-1, *(1,) * (image.ndim - 1))
    signed = draws * 2 - 1
    if level.gamma:
        power = ((1 + level.gamma) ** signed[:, 0]).view(column)
        axes = tuple(range(2, image.ndim))
        low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        spread = (high - low).clamp_min(1e-6)
        image = ((image - low) / spread).pow(power) * spread + low
    if level.contrast or level.brightness:
        factor = ((1 + level.contrast) ** signed[:, 1]).view(column)
        image = image * factor + (level.brightness * signed[:, 2]).view(column)
    if level.noise:
        image = image + torch.randn_like(image) * (level.noise * draws[:, 3]).view(column)
    return image
