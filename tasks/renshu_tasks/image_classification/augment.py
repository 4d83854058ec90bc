"""Augmentation of whole batches on their device, one random stream a sample.

Every random number is a function of the sample's own seed (`batch["seed"]`, drawn by the loader)
and a counter, so the pictures do not depend on batch size, number of ranks, workers or a resume.
The transforms of torchvision v2 draw their parameters once a call from the global generator: a
batch given to them gets one rotation for all its pictures. Hence our own.
All geometry is one affine map and one resampling. Mixup and cutmix are the exception by their
nature: which picture a sample is mixed with depends on its neighbour in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True)
class Level:
    """How strongly to augment. All ranges are symmetric around "unchanged".

    Attributes:
        rotation: degrees.
        shift: share of the side length, subpixel.
        crop: share of the side length that a padded crop moves by, whole pixels.
        shear: tangent of the angle.
        scale: 0.1 is a size between 1/1.1 and 1.1.
        stretch: the same for width against height, area kept.
        flip: mirror left and right in half of the pictures.
        brightness: added to pixels in [0, 1].
        contrast: 0.2 is a contrast between 0.8 and 1.2 around the picture's mean.
        fill: what lies outside of the picture: zeros, border or reflection.
    """

    rotation: float = 0.0
    shift: float = 0.0
    crop: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    stretch: float = 0.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    fill: str = "zeros"


LEVELS = {
    "none": Level(),
    "light": Level(crop=0.125, flip=True, fill="reflection"),
    "standard": Level(
        rotation=10,
        crop=0.125,
        scale=0.15,
        stretch=0.1,
        flip=True,
        brightness=0.1,
        contrast=0.2,
        fill="reflection",
    ),
    "characters": Level(rotation=15, shift=0.125, shear=0.2, scale=0.15, stretch=0.1),
}
"""What `training.augment` names; options.py describes them."""


def _signed(value: int) -> int:
    """A 64-bit constant as torch's int64, whose products wrap around."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN, _MIX_1, _MIX_2 = map(_signed, (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """The logical shift that int64 lacks."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(seed: Tensor, counter: Tensor) -> Tensor:
    """int64 seeds and counters (broadcast) → the counter-th output (from 1) of SplitMix64.

    Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    """
    value = seed + counter * _GOLDEN
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def uniforms(seed: Tensor, count: int, start: int = 0) -> Tensor:
    """int64 seeds [B] → float32 [count, B] in [0, 1): the numbers from `start` of each stream."""
    counter = torch.arange(start + 1, start + count + 1, device=seed.device)
    bits = splitmix64(seed[None, :], counter[:, None])
    return _shift_right(bits, 40).float() * 2.0**-24


def affine_maps(seed: Tensor, level: Level, size: tuple[int, int]) -> Tensor:
    """Seeds [B] → float32 [B, 2, 3]: output to input coordinates, as `affine_grid` wants them.

    Rotation, shear and scale act on square pixels whatever the shape of the picture.
    """
    height, width = size
    draws = uniforms(seed, 9)
    turn, skew, zoom, stretch, dx, dy, cx, cy = draws[:8] * 2 - 1
    mirror = torch.where(draws[8] < 0.5, -1.0, 1.0) if level.flip else 1.0
    angle, shear = turn * math.radians(level.rotation), skew * level.shear
    zoom, stretch = (1 + level.scale) ** zoom, (1 + level.stretch) ** stretch
    cos, sin = torch.cos(angle), torch.sin(angle)
    across, down = zoom * stretch * mirror, zoom / stretch
    rows = (
        cos * across,
        (cos * shear - sin) * down * (height / width),
        2 * (dx * level.shift + torch.round(cx * level.crop * width) / width),
        sin * across * (width / height),
        (sin * shear + cos) * down,
        2 * (dy * level.shift + torch.round(cy * level.crop * height) / height),
    )
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def warp(image: Tensor, maps: Tensor, fill: str = "zeros") -> Tensor:
    """Resample float images [B, C, H, W] through affine maps [B, 2, 3], bilinear."""
    grid = F.affine_grid(maps, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, padding_mode=fill, align_corners=False)


def augment(image: Tensor, seed: Tensor, level: Level) -> Tensor:
    """Float images [B, C, H, W] in [0, 1] and int64 seeds [B] → the same, augmented."""
    if level == LEVELS["none"]:
        return image
    image = warp(image, affine_maps(seed, level, (image.shape[-2], image.shape[-1])), level.fill)
    if level.brightness or level.contrast:
        draws = (uniforms(seed, 2, start=16) * 2 - 1)[..., None, None, None]
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        contrast = 1 + level.contrast * draws[0]
        image = ((image - mean) * contrast + mean + level.brightness * draws[1]).clamp(0, 1)
    return image


def to_float(image: Tensor) -> Tensor:
    """uint8 in [0, 255] → float32 in [0, 1]; floats are taken to be there already."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()


def mix(
    image: Tensor, target: Tensor, seed: Tensor, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Mix each sample with its predecessor in the batch: mixup (Zhang 2018), cutmix (Yun 2019).

    Args:
        image: float [B, C, H, W].
        target: float [B, K], one-hot or multi-hot.
        seed: int64 [B].
        mixup: α of the Beta distribution of the share; 0 is off.
        cutmix: the same for the area of the pasted box. With both on, each sample draws which.

    Returns:
        Images and targets of the same shapes. A target gets the share that its pixels have.
    """
    height, width = image.shape[-2:]
    which, quantile, row, column = uniforms(seed, 4, start=32)
    own = torch.ones_like(image[:, :1])
    if mixup:
        own = own * symmetric_beta(quantile, mixup)[:, None, None, None]
    if cutmix:
        side = torch.sqrt(1 - symmetric_beta(quantile, cutmix))
        inside = _between(row, side, height)[:, :, None] & _between(column, side, width)[:, None, :]
        boxes = (~inside).to(image.dtype)[:, None]
        own = torch.where((which < 0.5)[:, None, None, None], own, boxes) if mixup else boxes
    share = own.mean(dim=(1, 2, 3))[:, None]
    return (
        own * image + (1 - own) * image.roll(1, 0),
        share * target + (1 - share) * target.roll(1, 0),
    )


def _between(centre: Tensor, side: Tensor, length: int) -> Tensor:
    """Which of `length` pixels lie within `side` (a share) around `centre`: bool [B, length]."""
    position = (torch.arange(length, device=centre.device) + 0.5) / length
    return (position[None, :] - centre[:, None]).abs() < side[:, None] / 2


def symmetric_beta(quantile: Tensor, alpha: float, points: int = 513) -> Tensor:
    """Quantiles [B] in [0, 1) of Beta(α, α), folded to the half above 0.5.

    Folding makes each sample its own main part; where pairs are symmetric that changes nothing in
    distribution. The density x^(α-1) (1-x)^(α-1) is integrated on [0, 1/2] over s = x^α, where it
    is smooth, and the inverse is interpolated.
    """
    s = torch.linspace(0, 0.5**alpha, points, dtype=torch.float64)
    density = (1 - s ** (1 / alpha)) ** (alpha - 1)
    mass = torch.cumulative_trapezoid(density, s)
    mass = torch.cat([mass.new_zeros(1), mass / mass[-1]]).float().to(quantile.device)
    s = s.float().to(quantile.device)
    right = torch.searchsorted(mass, quantile.contiguous(), right=True).clamp(1, points - 1)
    left = right - 1
    weight = (quantile - mass[left]) / (mass[right] - mass[left])
    return 1 - (s[left] + weight * (s[right] - s[left])) ** (1 / alpha)
