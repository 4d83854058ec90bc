"""From the fingerprint to a plan: spacing, normalisation, patch, network, and why.

In the spirit of nnU-Net (Isensee et al., Nature Methods 2021): the rules are its, the sizes are
those of the device at hand.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from renshu.errors import ConfigError, DataError, near
from renshu_tasks.segmentation.defaults import Defaults, Device
from renshu_tasks.segmentation.fingerprint import Facts
from renshu_tasks.segmentation.options import DataOptions, ModelOptions, SegmentationOptions
from renshu_tasks.segmentation.plan import NETWORKS, WIDEST, Intensity, Normalising, Plan
from renshu_tasks.segmentation.records import Source

_ANISOTROPIC = 3.0
"""Ratio of the coarsest spacing to the finest from which the coarse axis is kept coarser."""

_LEAST_LEVELS = 3
"""Of MONAI's DynUNet."""

_MAPS = 14
"""Feature maps of a level that a training step keeps, in units of the level's channels: two
convolutions with norm and activation on both sides, the concatenation, and their gradients."""


def make_plan(
    facts: Sequence[Facts],
    classes: Sequence[str],
    source: Source,
    options: SegmentationOptions,
    device: Device,
    defaults: Defaults,
) -> Plan:
    """The plan for training cases on a device; a pure function of what it is given.

    Raises ConfigError for options that cannot be met, and if not even the smallest batch fits in
    the memory.
    """
    data, model, reasons = options.data, options.model, {}
    axes = len(facts[0].shape)
    spacing = _spacing(facts, data, reasons)
    intensities = _intensities(facts, source, data, reasons)
    lengths = np.array([np.multiply(f.canonical(f.shape), f.canonical(f.spacing)) for f in facts])
    median = [max(1, round(size)) for size in np.median(lengths / spacing, axis=0)]
    name = _network(model, axes)
    width = model.width or defaults.width
    patch = _patch(median, defaults.patch_voxels, data, reasons)
    fold = _fold(spacing, model, name, defaults, reasons)
    strides, kernels = _levels(
        np.divide(patch, fold), np.multiply(spacing, fold), model, name, reasons
    )
    filters = tuple(min(width * 2**level, WIDEST) for level in range(len(strides)))
    batch = data.batch_size or defaults.batch_size
    plan = Plan(
        classes=tuple(classes),
        intensities=intensities,
        spacing=spacing,
        patch=_divisible(patch, np.prod((fold, *strides), axis=0).tolist(), data.patch is not None),
        batch_size=batch,
        patches=data.patches or _patches(facts, batch),
        network=name,
        filters=filters,
        kernels=kernels,
        strides=strides,
        fold=fold,
        deep_supervision=model.deep_supervision and name == "dynunet" and len(filters) > 2,
        reasons=reasons,
    )
    plan = _fitted(plan, data, int(device.memory * defaults.share), device.name)
    reasons |= {
        "patch": f"{_times(plan.patch)} voxels; the median case has {_times(median)}"
        + reasons.get("patch", ""),
        "batch": f"{plan.batch_size} patches: about {step_bytes(plan) / 2**20:,.0f} MiB a step of"
        f" the {device.memory / 2**20:,.0f} MiB free on {device.name}",
        "network": f"{name} of {len(filters)} levels with {', '.join(map(str, filters))} channels; "
        + defaults.reason,
        "epoch": f"{plan.patches} patches",
    }
    plan.check("plan")
    return plan


def step_bytes(plan: Plan) -> int:
    """Estimated memory of one training step, in bytes: its feature maps in float32."""
    voxels = np.prod(plan.patch) / np.cumprod([np.prod(s) for s in plan.strides])
    voxels = voxels / np.prod(plan.fold)
    maps = sum(v * f for v, f in zip(voxels, plan.filters, strict=True))
    return int(4 * plan.batch_size * (_MAPS * maps + 6 * len(plan.classes) * np.prod(plan.patch)))


def _fitted(plan: Plan, data: DataOptions, memory: int, device: str) -> Plan:
    """The plan with patch and batch made smaller until a step fits; never below one small patch."""
    while step_bytes(plan) > memory:
        smaller = [p - d for p, d in zip(plan.patch, plan.divisor, strict=True)]
        largest = int(np.argmax(plan.patch))
        if plan.batch_size > 1 and data.batch_size is None:
            plan = dataclasses.replace(plan, batch_size=plan.batch_size - 1)
        elif data.patch is None and smaller[largest] >= max(plan.divisor[largest], 16):
            patch = list(plan.patch)
            patch[largest] = smaller[largest]
            plan = dataclasses.replace(plan, patch=tuple(patch))
        else:
            raise ConfigError(
                f"a training step needs about {step_bytes(plan) / 2**20:,.0f} MiB, and"
                f" {memory / 2**20:,.0f} MiB may be used on {device}",
                where=f"data.patch {list(plan.patch)}, data.batch_size {plan.batch_size}",
                mend="a smaller --data.patch, --data.batch_size or --model.width",
            )
    return plan


def _spacing(
    facts: Sequence[Facts], data: DataOptions, reasons: dict[str, str]
) -> tuple[float, ...]:
    """Median spacing of each axis; a coarse axis takes its 10th percentile (nnU-Net)."""
    table = np.array([one.canonical(one.spacing) for one in facts])
    if data.spacing is not None:
        if len(data.spacing) != table.shape[1]:
            raise ConfigError(
                f"{data.spacing} has {len(data.spacing)} numbers",
                where="data.spacing",
                allowed=f"{table.shape[1]}, one an axis",
            )
        reasons["spacing"] = f"{_times(data.spacing)} mm, as asked"
        return tuple(data.spacing)
    found = np.median(table, axis=0)
    why = "the median of the training cases"
    coarse = int(np.argmax(found))
    if found[coarse] > _ANISOTROPIC * np.delete(found, coarse).min():
        found[coarse] = np.percentile(table[:, coarse], 10)
        why += f"; along the coarse axis {coarse} the 10th percentile, so that little is made up"
    reasons["spacing"] = f"{_times(found)} mm: {why}"
    return tuple(float(value) for value in found)


def _intensities(
    facts: Sequence[Facts], source: Source, data: DataOptions, reasons: dict[str, str]
) -> tuple[Intensity, ...]:
    """One scheme for all channels, by what the intensities mean."""
    modality = data.modality if data.modality != "auto" else source.modality
    if modality is None:
        lows = [one.channels[0][0] for one in facts]
        is_ct = len(facts[0].channels) == 1 and np.median(lows) <= -500
        modality = "picture" if facts[0].kind == "picture" else "ct" if is_ct else "mr"
    zeros = float(np.median([one.zeros for one in facts]))
    kind: Any = data.normalisation
    if kind == "auto":
        if modality == "ct" or source.same_scale:
            kind, why = "dataset", "an intensity means the same in every case"
        elif modality == "mr" and zeros > 0.25:
            kind, why = "nonzero", f"MR has no scale, and {zeros:.0%} of the voxels are 0 outside"
        else:
            kind, why = "case", "intensities have no scale of their own"
    else:
        why = "as asked"
    reasons["normalisation"] = f"{kind} ({modality}): {why}"
    return tuple(_intensity(kind, facts, channel) for channel in range(len(facts[0].channels)))


def _intensity(kind: Normalising, facts: Sequence[Facts], channel: int) -> Intensity:
    if kind != "dataset":
        return Intensity(kind)
    values = np.concatenate([one.foreground[channel] for one in facts]).astype(np.float64)
    if not len(values):
        raise DataError("no training mask holds a class, so intensities cannot be scaled by it")
    low, high = np.percentile(values, (0.5, 99.5))
    inside = values.clip(low, high)
    return Intensity(
        kind, float(low), float(high), float(inside.mean()), float(inside.std()) or 1.0
    )


def _network(model: ModelOptions, axes: int) -> str:
    if model.name not in NETWORKS:
        raise ConfigError(
            f"there is no network {model.name!r}",
            where="model.name",
            allowed=", ".join(NETWORKS),
            mend=near(model.name, NETWORKS),
        )
    if model.name.startswith("resnet") and axes == 3:
        raise ConfigError(
            f"{model.name} reads flat pictures, and these cases are solid",
            where="model.name",
            allowed="dynunet, unet, segresnet",
        )
    return model.name


def _patch(
    median: Sequence[int], voxels: int, data: DataOptions, reasons: dict[str, str]
) -> tuple[int, ...]:
    """The median case, its longest side shortened until it has no more voxels than allowed."""
    if data.patch is not None:
        if len(data.patch) != len(median):
            raise ConfigError(
                f"{data.patch} has {len(data.patch)} numbers",
                where="data.patch",
                allowed=f"{len(median)}, one an axis",
            )
        reasons["patch"] = "; as asked"
        return tuple(data.patch)
    if len(median) == 2:
        voxels = max(voxels, 256**2)
    patch = list(median)
    while np.prod(patch) > voxels:
        patch[int(np.argmax(patch))] -= 1
    return tuple(patch)


def _fold(
    spacing: Sequence[float],
    model: ModelOptions,
    name: str,
    defaults: Defaults,
    reasons: dict[str, str],
) -> tuple[int, ...]:
    """Voxels of each fine axis that are folded into channels (space to depth, Shi et al. 2016)."""
    fold = model.fold or (1 if name.startswith("resnet") else defaults.fold)
    if fold > 1 and name.startswith("resnet"):
        raise ConfigError(f"{name} reads pixels as they are", where="model.fold", allowed="1")
    found = tuple(fold if mm <= 2 * min(spacing) else 1 for mm in spacing)
    if fold > 1:
        reasons["fold"] = f"{_times(found)} voxels are one place with as many channels: a level"
        reasons["fold"] += " costs a fraction, and the finest logits keep every voxel"
    return found


def _divisible(patch: Sequence[int], divisor: Sequence[int], asked: bool) -> tuple[int, ...]:
    """The patch rounded up to what the network can halve; one that was asked for is not changed."""
    rounded = tuple(math.ceil(p / d) * d for p, d in zip(patch, divisor, strict=True))
    if not asked and rounded == tuple(divisor):
        rounded = (2 * rounded[0], *rounded[1:])  # instance norm needs two places to compare
    if asked and rounded != tuple(patch):
        raise ConfigError(
            f"the patch {list(patch)} cannot be halved as often as the network has levels",
            where="data.patch",
            allowed=f"multiples of {list(divisor)}",
            mend="or --model.depth with fewer levels",
        )
    return rounded


def _levels(
    patch: Sequence[float],
    spacing: Sequence[float],
    model: ModelOptions,
    name: str,
    reasons: dict[str, str],
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Strides and kernels by level: an axis is halved while it has 8 voxels or more (nnU-Net).

    An axis more than twice as coarse as the finest is neither halved nor convolved until the
    others have caught up.
    """
    size, step = np.array(patch, dtype=np.float64), np.array(spacing, dtype=np.float64)
    stride, strides, kernels = (1,) * len(patch), [], []
    least = _LEAST_LEVELS if name == "dynunet" else 1
    most = model.depth or (5 if name.startswith("resnet") else 6)
    for level in range(most):
        fine = step <= 2 * step.min()
        strides.append(stride)
        kernels.append(tuple(3 if f else 1 for f in fine))
        halved = fine & ((size >= 8) | (level + 1 < least))
        if not halved.any():
            break
        stride = tuple(2 if h else 1 for h in halved)
        size, step = np.where(halved, size / 2, size), np.where(halved, step * 2, step)
    if model.depth and not least <= model.depth <= len(strides):
        raise ConfigError(
            f"{name} on patches of {_times(patch)} places cannot have {model.depth} levels",
            where="model.depth",
            allowed=f"{least} to {max(len(strides), least)}",
        )
    if any(1 in kernel for kernel in kernels):
        reasons["kernels"] = "flat on the fine levels: one axis is more than twice as coarse"
    return tuple(strides), tuple(kernels)


def _patches(facts: Sequence[Facts], batch: int) -> int:
    """Patches an epoch: each training case a few times, at least 50 batches and at most 250."""
    return batch * min(max(50, len(facts)), 250)


def _times(values: Sequence[float]) -> str:
    return "×".join(f"{value:.4g}" for value in values)
