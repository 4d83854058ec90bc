"""Segmentation against MONAI: real patients by the clock, the embedded template, patches a second.

Hippocampus MRI (Medical Segmentation Decathlon, Task 4; the folder is $RENSHU_SHARED_DATA, else
../shared/data, and its rows are empty without it): sorted ids, every fifth is the test part, a
tenth of the rest validation, one thread each. MONAI's UNet learns as its users write it: DiceCE,
AdamW, batch 2, instance norm, 48×64×48 padding, noise and scale. Ours is `renshu train
segmentation` with its defaults. --seconds shortens the race; a first few steps say how many fit.

The template: the held-out block of nilearn's MNI152, with the parts of `renshu_tasks.segmentation
.demo`, beside Otsu's thresholds and boosted trees on filters of the same T1 image.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import _table
from renshu import Trainer
from renshu_tasks.segmentation import demo, inference
from renshu_tasks.segmentation.augment import Level, augment
from renshu_tasks.segmentation.data import SegmentationData
from renshu_tasks.segmentation.module import Segmenter, build, callbacks
from renshu_tasks.segmentation.options import DataOptions, SegmentationOptions, TrainingOptions
from renshu_tasks.segmentation.patches import Patches, as_batch
from renshu_tasks.segmentation.prepare import Prepared
from renshu_tasks.segmentation.records import Source
from renshu_tasks.segmentation.sources import from_folders

HIPPOCAMPUS = "hippocampus, mean test Dice of both structures"
MONAI = _table.named("monai")
PAD = (48, 64, 48)


def shared(name: str) -> Path | None:
    """A folder of real data, if it is there."""
    root = os.environ.get("RENSHU_SHARED_DATA", str(_table.ROOT.parent / "shared" / "data"))
    folder = Path(root) / name
    return folder if folder.is_dir() else None


def hippocampus(folder: Path, options: SegmentationOptions) -> SegmentationData:
    """The cases with the parts of the race."""
    source = from_folders(folder, options.data)
    records = sorted(source.records, key=lambda record: record.id)
    rest = [record for number, record in enumerate(records) if number % 5 != 4]
    validation = {record.id for record in rest[::10]}
    test = {record.id for record in records} - {record.id for record in rest}

    def part(name: str) -> str:
        return "test" if name in test else "val" if name in validation else "train"

    parted = [replace(record, part=part(record.id)) for record in records]
    return SegmentationData(Source(parted, source.load, source.where), options)


def dice(predicted: np.ndarray, truth: np.ndarray, classes: Iterable[int]) -> list[float]:
    """Dice of each class."""
    masks = ((predicted == k, truth == k) for k in classes)
    return [float(2 * (p & t).sum() / max(p.sum() + t.sum(), 1)) for p, t in masks]


# ---- real patients


def trained(data: SegmentationData, seconds: float) -> Segmenter:
    """Ours after so many seconds of training; how many steps that is, a few tell beforehand."""
    segmenter = build(data.options, data)
    batches = iter(data.train_dataloader())
    optimizer = torch.optim.AdamW(segmenter.parameters())
    segmenter.train()
    times = []
    for _ in range(8):
        start = time.perf_counter()
        batch = segmenter.on_after_batch_transfer(next(batches))
        segmenter.loss(segmenter.network(batch["image"]), batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    steps = max(10, int(seconds / float(np.median(times[2:])) * 0.97))
    segmenter = build(data.options, data)
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        seed=0,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks(data.options),
    )
    start = time.perf_counter()
    trainer.fit(segmenter, datamodule=data)
    print(f"renshu: {steps} steps in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return segmenter


def test_dice(data: SegmentationData, segmenter: Segmenter, classes: Iterable[int]) -> float:
    """Mean over cases and classes, whole cases on their own grid."""
    classes = list(classes)
    found = [dice(segmenter.answer(case).mask, case.mask, classes) for case in data.cases("test")]
    return float(np.mean(found))


def theirs(data: SegmentationData, seconds: float, at: Iterable[float]) -> Iterator[float]:
    """MONAI's UNet: mean test Dice after each time of `at`; evaluation does not count."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    random = np.random.default_rng(0)
    network = UNet(3, 1, 3, (16, 32, 64, 128), (2, 2, 2), num_res_units=2, norm="instance")
    loss = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    cases = [_centred(data.case(row)) for row in data.parts["train"]]
    marks, spent, steps = sorted(at), 0.0, 0
    network.train()
    while marks:
        start = time.perf_counter()
        chosen = random.integers(len(cases), size=2)
        image = torch.stack([cases[number][0] for number in chosen])
        mask = torch.stack([cases[number][1] for number in chosen])
        image = image * (1 + 0.1 * torch.randn(2, 1, 1, 1, 1)) + 0.1 * torch.randn_like(image)
        optimizer.zero_grad()
        loss(network(image), mask).backward()
        optimizer.step()
        spent, steps = spent + time.perf_counter() - start, steps + 1
        if spent >= marks[0]:
            marks.pop(0)
            print(f"MONAI: {steps} steps in {spent:.0f} s", file=sys.stderr)
            network.eval()
            yield _their_dice(data, network)
            network.train()


def _centred(case: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A case normalised and padded to PAD (cut where it is larger): [1, *PAD] each."""
    image = (case.image - case.image.mean()) / case.image.std()
    mask = case.mask[None].astype(np.float32)
    found = []
    for array in (image, mask):
        for axis, size in enumerate(PAD, 1):
            extra = size - array.shape[axis]
            sides = [(0, 0)] * 4
            sides[axis] = (max(extra, 0) // 2, max(extra, 0) - max(extra, 0) // 2)
            array = np.pad(array, sides)
            array = np.take(array, range(size), axis)
        found.append(torch.from_numpy(np.ascontiguousarray(array, np.float32)))
    return found[0], found[1]


@torch.inference_mode()
def _their_dice(data: SegmentationData, network: torch.nn.Module) -> float:
    found = []
    for row in data.parts["test"]:
        case = data.case(row)
        image = (case.image - case.image.mean()) / case.image.std()
        mask = inference.segment(network, image, PAD, 0.5, 3)
        found.append(dice(mask, case.mask, (1, 2)))
    return float(np.mean(found))


def race(seconds: float) -> Iterable[_table.Row]:
    """Ours after half the time, and after all of it, against MONAI's after all of it."""
    folder = shared("hippocampus")
    if folder is None:
        yield _table.Row(HIPPOCAMPUS, "Dice", None)
        return
    options = SegmentationOptions(
        data=DataOptions(path=str(folder)), training=TrainingOptions(full_cases=0)
    )
    data = hippocampus(folder, options)
    half, whole = theirs(data, seconds, (seconds / 2, seconds))
    for share, reach in ((0.5, ">= peer"), (1.0, "> peer")):
        yield _table.Row(
            f"{HIPPOCAMPUS}, {seconds * share:.0f} s of one thread against {seconds:.0f} s",
            "Dice",
            test_dice(data, trained(data, seconds * share), (1, 2)),
            whole,
            MONAI,
            reach,
            spread=f"MONAI after {seconds / 2:.0f} s: {half:.4f}",
        )


# ---- the embedded template


def template(minutes: float) -> Iterable[_table.Row]:
    """Grey and white matter of the held-out block: thresholds, trees on filters, ours."""
    options = SegmentationOptions(training=TrainingOptions(full_cases=0))
    data = SegmentationData(demo.template(), options)
    cases = {part: next(iter(data.cases(part))) for part in ("train", "test")}
    truth = cases["test"].mask
    otsu = np.mean(dice(_otsu(cases["test"].image[0]), truth, (2, 3)))
    trees = np.mean(dice(_trees(cases["train"], cases["test"]), truth, (2, 3)))
    found = test_dice(data, trained(data, minutes * 60), (2, 3))
    yield _table.Row(
        f"template, held-out block, mean Dice of grey and white after {minutes:.0f} minutes",
        "Dice",
        found,
        float(trees),
        "boosted trees on 14 filters",
        ">= 0.97",
        spread=f"Otsu {otsu:.4f}",
    )


def _otsu(image: np.ndarray) -> np.ndarray:
    """Two thresholds inside the brain (Otsu 1979): other, grey, white as 1, 2, 3."""
    from skimage.filters import threshold_multiotsu

    thresholds = threshold_multiotsu(image[image > 0], classes=3)
    return np.where(image > 0, np.digitize(image, thresholds) + 1, 0)


def _filters(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """14 multi-scale features of T1 [voxels, 14] at flat places."""
    from scipy import ndimage

    columns = [image]
    for sigma in (1.0, 2.0, 4.0):
        smooth = ndimage.gaussian_filter(image, sigma)
        columns += [
            smooth,
            ndimage.gaussian_gradient_magnitude(image, sigma),
            ndimage.gaussian_laplace(image, sigma),
            np.sqrt(np.maximum(ndimage.gaussian_filter(image**2, sigma) - smooth**2, 0)),
        ]
    columns.append(ndimage.median_filter(image, 3))
    return np.stack([column.reshape(-1)[place] for column in columns], axis=1)


def _trees(train: Any, test: Any) -> np.ndarray:
    """Gradient-boosted trees on the filters, 400,000 voxels inside the training block."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    random = np.random.default_rng(0)
    inside = np.flatnonzero(train.mask)
    place = random.choice(inside, 400_000, replace=False)
    trees = HistGradientBoostingClassifier(max_iter=200, random_state=0)
    trees.fit(_filters(train.image[0], place), train.mask.reshape(-1)[place])
    answer = np.zeros(test.mask.size, np.int64)
    inside = np.flatnonzero(test.image[0] > 0)
    answer[inside] = trees.predict(_filters(test.image[0], inside))
    return answer.reshape(test.mask.shape)


# ---- patches a second


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
    """All rows; the race and the template only in full, or shortened by --seconds."""
    torch.set_num_threads(1)
    yield from patches(24 if quick else 100)
    if not quick:
        yield from race(SECONDS)
        yield from template(20 * SECONDS / 900)
        return
    for what in (f"{HIPPOCAMPUS}, {n:.0f} s of one thread against 900 s" for n in (450, 900)):
        yield _table.stored(__file__, what, "Dice")


SECONDS = 900.0

if __name__ == "__main__":
    if "--seconds" in sys.argv:
        place = sys.argv.index("--seconds")
        SECONDS = float(sys.argv[place + 1])
        del sys.argv[place : place + 2]
    _table.main(__file__, measure)
