"""Segmentation of real patients against MONAI, by the clock.

Hippocampus MRI (Medical Segmentation Decathlon, Task 4; the folder is $RENSHU_SHARED_DATA, else
../shared/data, and the rows are empty without it): sorted ids, every fifth is the test part, a
tenth of the rest validation, one thread each. MONAI's UNet learns as its users write it: DiceCE,
AdamW, batch 2, instance norm, 48×64×48 padding, noise and scale. Ours learns as `renshu train
segmentation` does, with its defaults. Seconds are the process's own, so that others on the machine
count less; evaluation does not count. --seconds shortens the race.
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

import _table
from _segmentation import dice, taken, test_dice, trained
from renshu_tasks.segmentation import inference
from renshu_tasks.segmentation.data import SegmentationData
from renshu_tasks.segmentation.options import DataOptions, SegmentationOptions, TrainingOptions
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
        start = time.process_time()
        chosen = random.integers(len(cases), size=2)
        image = torch.stack([cases[number][0] for number in chosen])
        mask = torch.stack([cases[number][1] for number in chosen])
        image = image * (1 + 0.1 * torch.randn(2, 1, 1, 1, 1)) + 0.1 * torch.randn_like(image)
        optimizer.zero_grad()
        loss(network(image), mask).backward()
        optimizer.step()
        spent, steps = spent + time.process_time() - start, steps + 1
        if spent >= marks[0]:
            marks.pop(0)
            print(f"MONAI: {steps} steps in {spent:.0f} s", file=sys.stderr, flush=True)
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
        segmenter, spent = trained(data, seconds * share)
        yield _table.Row(
            f"{HIPPOCAMPUS}, {seconds * share:.0f} s of one thread against {seconds:.0f} s",
            "Dice",
            test_dice(data, segmenter, (1, 2)),
            whole,
            MONAI,
            reach,
            spread=f"{spent:.0f} s; MONAI after {seconds / 2:.0f} s: {half:.4f}",
        )


def measure(quick: bool) -> Iterable[_table.Row]:
    """Both rows; in --quick those of the last full run."""
    torch.set_num_threads(1)
    if not quick:
        yield from race(SECONDS)
        return
    for what in (f"{HIPPOCAMPUS}, {n:.0f} s of one thread against 900 s" for n in (450, 900)):
        yield _table.stored(__file__, what, "Dice")


SECONDS = 900.0

if __name__ == "__main__":
    SECONDS = taken("--seconds", SECONDS)
    _table.main(__file__, measure)
