"""Augmented patches reaching the model, beside MONAI's CacheDataset and DataLoader."""

from __future__ import annotations

import time
from collections.abc import Iterable

import numpy as np
import torch
from torch.utils.data import DataLoader

import _table
from renshu_tasks.segmentation.augment import Level, augment
from renshu_tasks.segmentation.patches import Patches, as_batch
from renshu_tasks.segmentation.prepare import Prepared

MONAI = _table.named("monai")
SIDE, PATCH, BATCH = 128, (64, 64, 64), 2


def patches(count: int) -> Iterable[_table.Row]:
    """Augmented patches from four volumes of 128³ in memory, the same kinds of transforms.

    Both: a class-balanced crop, one affine resampling with the mask, contrast and brightness,
    noise, mirrored along one axis. MONAI with CacheDataset and DataLoader, two workers; ours in
    the training process.
    """
    random = np.random.default_rng(0)
    volumes = [random.standard_normal((1, SIDE, SIDE, SIDE), dtype=np.float32) for _ in range(4)]
    masks = [(volume[0] > 1).astype(np.int16) for volume in volumes]
    rates = {
        "monai": _their_patches(volumes, masks, count),
        "renshu": _our_patches(volumes, masks, count),
    }
    yield _table.Row(
        "cached and augmented patches of 64³ reaching the model",
        "patches/s",
        rates["renshu"],
        rates["monai"],
        f"{MONAI}, CacheDataset + DataLoader, 2 workers",
        f">= {2 * rates['monai']:.1f}",
    )


def _our_patches(volumes: list[np.ndarray], masks: list[np.ndarray], count: int) -> float:
    cases = [Prepared(v, np.eye(4), m) for v, m in zip(volumes, masks, strict=True)]
    source = Patches(cases, len(cases), np.ones((len(cases), 2), bool), PATCH, count + BATCH, 0.5)
    level = Level(rotation=15, scale=0.2, contrast=0.2, brightness=0.1, noise=0.1)
    loader = DataLoader(source, batch_size=BATCH, collate_fn=as_batch)
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    for batch in batches:
        augment(batch["image"], batch["mask"], batch["draws"], level, (1, 1, 1), [0])
    return count / (time.perf_counter() - start)


def _their_patches(volumes: list[np.ndarray], masks: list[np.ndarray], count: int) -> float:
    from monai import transforms as mt
    from monai.data import CacheDataset
    from monai.data import DataLoader as MonaiLoader

    both = ("image", "mask")
    chain = mt.Compose(
        [
            mt.EnsureTyped(both),
            mt.RandCropByLabelClassesd(both, "mask", PATCH, ratios=[1, 1], num_classes=2),
            mt.RandAffined(
                both, prob=1.0, rotate_range=(0.26,) * 3, scale_range=(0.2,) * 3,
                mode=("bilinear", "nearest"), padding_mode="border",
            ),
            mt.RandScaleIntensityd("image", 0.2, prob=1.0),
            mt.RandShiftIntensityd("image", 0.1, prob=1.0),
            mt.RandGaussianNoised("image", prob=1.0, std=0.1),
            mt.RandFlipd(both, prob=0.5, spatial_axis=0),
        ]
    )  # fmt: skip
    rows = [{"image": volumes[n % 4], "mask": masks[n % 4][None]} for n in range(count + 4 * BATCH)]
    data = CacheDataset(rows, chain, cache_num=4, progress=False)
    batches = iter(MonaiLoader(data, batch_size=BATCH, num_workers=2))
    for _ in range(4):  # the workers start
        next(batches)
    start = time.perf_counter()
    for _ in batches:
        pass
    return count / (time.perf_counter() - start)


def measure(quick: bool) -> Iterable[_table.Row]:
    """One row."""
    torch.set_num_threads(1)
    yield from patches(24 if quick else 100)


if __name__ == "__main__":
    _table.main(__file__, measure)
