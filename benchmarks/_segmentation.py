"""What the benchmarks of segmentation share: a training of so many seconds, and its Dice."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

import numpy as np
import torch

from renshu import Trainer
from renshu_tasks.segmentation.data import SegmentationData
from renshu_tasks.segmentation.module import Segmenter, build, callbacks


def dice(predicted: np.ndarray, truth: np.ndarray, classes: Iterable[int]) -> list[float]:
    """Dice of each class."""
    masks = ((predicted == k, truth == k) for k in classes)
    return [float(2 * (p & t).sum() / max(p.sum() + t.sum(), 1)) for p, t in masks]


def trained(data: SegmentationData, seconds: float) -> tuple[Segmenter, float]:
    """Ours after so many seconds of the processor; how many steps fit, a few tell beforehand."""
    segmenter = build(data.options, data)
    batches = iter(data.train_dataloader())
    optimizer = torch.optim.AdamW(segmenter.parameters())
    segmenter.train()
    times = []
    for _ in range(8):
        start = time.process_time()
        batch = segmenter.on_after_batch_transfer(next(batches))
        segmenter.loss(segmenter.network(batch["image"]), batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - start)
    steps = max(10, int(seconds / float(np.median(times[2:])) * 0.94))
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
    start = time.process_time()
    trainer.fit(segmenter, datamodule=data)
    spent = time.process_time() - start
    print(f"renshu: {steps} steps in {spent:.0f} s", file=sys.stderr, flush=True)
    return segmenter, spent


def test_dice(data: SegmentationData, segmenter: Segmenter, classes: Iterable[int]) -> float:
    """Mean over cases and classes, whole cases on their own grid."""
    classes = list(classes)
    found = [dice(segmenter.answer(case).mask, case.mask, classes) for case in data.cases("test")]
    return float(np.mean(found))


def taken(option: str, default: float) -> float:
    """The number behind an option of a benchmark's own, which is taken off the command line."""
    if option not in sys.argv:
        return default
    place = sys.argv.index(option)
    number = float(sys.argv[place + 1])
    del sys.argv[place : place + 2]
    return number
