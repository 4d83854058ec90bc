"""CIFAR-10 from scratch in 15 minutes on 2 cores: renshu beside the same training in plain torch.

Both train the same network on the same 5,400 of the 6,000 training pictures (the other 600 are
renshu's validation part), with the same augmentation, optimiser, schedule, averaged weights and
number of epochs. Their epochs alternate in one process, so both see the same machine. Quick trains
a few short epochs for the speed and takes the accuracies from the last full run.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import _table
from renshu import Trainer
from renshu.callbacks.callback import Callback
from renshu_tasks.image_classification import augment, module
from renshu_tasks.image_classification.data import ImageData
from renshu_tasks.image_classification.models import SmallNet
from renshu_tasks.image_classification.options import (
    ImageClassificationOptions,
    ModelOptions,
    TrainingOptions,
)

FOLDER = _table.ROOT.parent / "shared" / "data" / "cifar10"
BUDGET = 15 * 60.0
BATCH, WIDTH, RATE, DECAY, SMOOTHING, WARMUP, AVERAGE = 64, 32, 5e-3, 0.05, 0.1, 0.15, 0.998
LEVEL, CUTMIX = "light", 0.0
OPTIONS = ImageClassificationOptions(
    model=ModelOptions(width=WIDTH),
    training=TrainingOptions(
        learning_rate=RATE,
        warmup=WARMUP,
        weight_decay=DECAY,
        augment=LEVEL,
        cutmix=CUTMIX,
        label_smoothing=SMOOTHING,
        ema_decay=AVERAGE,
        tta="flip",
        channels_last=True,
    ),
)

ACCURACY = "CIFAR-10, 15 minutes: test accuracy beside plain torch"
SPEED = "CIFAR-10: training speed beside plain torch"


class Plain:
    """The same training without renshu's loop, loader, module and callbacks."""

    def __init__(self, data: ImageData, epochs: int, limit: int | None) -> None:
        self.mean = torch.tensor(data.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(data.std).view(1, 3, 1, 1)
        self.limit = limit
        self.net = SmallNet(3, len(data.classes), WIDTH, blocks=3)
        self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        images, labels = _arrays(data, "train")
        self.loader = DataLoader(TensorDataset(images, labels), BATCH, shuffle=True)
        matrices = [p for p in self.net.parameters() if p.ndim > 1]
        vectors = [p for p in self.net.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0}],
            lr=RATE,
        )
        steps = epochs * (limit or len(self.loader))
        rise = round(steps * WARMUP)

        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / rise
            return 0.5 * (1 + math.cos(math.pi * (step - rise) / (steps - rise)))

        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        floats = [b for b in self.net.buffers() if b.is_floating_point()]
        self.weights = [*self.net.parameters(), *floats]
        self.average: list[Tensor] = []
        self.step = 0

    def epoch(self) -> float:
        """Train one epoch; returns the mean loss, which a loop would show."""
        self.net.train()
        total = torch.zeros(())
        for count, (image, label) in enumerate(self.loader):
            if count == self.limit:
                break
            seed = torch.randint(2**63 - 1, (len(image),))
            image = augment.augment(augment.to_float(image), seed, augment.LEVELS[LEVEL])
            image, target = self._normalise(image), label
            if CUTMIX:
                image, target = augment.mix(image, F.one_hot(label, 10).float(), seed, 0, CUTMIX)
            loss = F.cross_entropy(self.net(image), target, label_smoothing=SMOOTHING)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self._update()
            total += loss.detach()
        return float(total / len(self.loader))

    @torch.no_grad()
    def _update(self) -> None:
        if not self.average:
            self.average = [weight.detach().clone() for weight in self.weights]
        else:
            share = 1 - min(AVERAGE, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(self.average, self.weights, share)
        self.step += 1

    def _normalise(self, image: Tensor) -> Tensor:
        return ((image - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def right(self, data: ImageData) -> Tensor:
        """Which test pictures the averaged weights name, over a picture and its mirror image."""
        images, labels = _arrays(data, "test")
        torch._foreach_copy_(self.weights, self.average)
        self.net.eval()
        found = []
        for some in images.split(250):
            image = self._normalise(augment.to_float(some))
            scores = self.net(image).softmax(1) + self.net(image.flip(-1)).softmax(1)
            found.append(scores.argmax(1))
        return torch.cat(found) == labels


class Alternate(Callback):
    """After each epoch of renshu one of plain torch; keeps the seconds of both.

    An epoch of renshu is all the time from one return of this hook to its next call.
    """

    def __init__(self, plain: Plain) -> None:
        self.plain = plain
        self.ours: list[float] = []
        self.theirs: list[float] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.left = time.perf_counter()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.ours.append(time.perf_counter() - self.left)
        start = time.perf_counter()
        self.plain.epoch()
        self.theirs.append(time.perf_counter() - start)
        self.left = time.perf_counter()

    def ratio(self) -> tuple[float, str]:
        """Speed of renshu / speed of plain torch, median and range over epochs after the first."""
        pairs = zip(self.ours[1:], self.theirs[1:], strict=True)
        ratios = [theirs / ours for ours, theirs in pairs]
        return statistics.median(ratios), f"{min(ratios):.3f} to {max(ratios):.3f}"


def _arrays(data: ImageData, part: str) -> tuple[Tensor, Tensor]:
    """All pictures and labels of a part: uint8 [N, 3, 32, 32] and int64 [N]."""
    pictures = data.dataset(part)
    images = torch.stack([pictures.image(number) for number in range(len(pictures))])
    return images, pictures.labels


def _train(data: ImageData, epochs: int, limit: int | None = None) -> tuple[Any, Alternate]:
    """Both trainings, their epochs in turns."""
    torch.manual_seed(0)
    alternate = Alternate(Plain(data, epochs, limit))
    classifier = module.build(OPTIONS, data)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        seed=0,
        limit_train_batches=limit,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        callbacks=[*module.callbacks(OPTIONS), alternate],
    )
    trainer.fit(classifier, datamodule=data)
    return classifier, alternate


def _speed(data: ImageData, alternate: Alternate, pictures: int) -> _table.Row:
    ratio, spread = alternate.ratio()
    ours, theirs = (pictures / statistics.median(t[1:]) for t in (alternate.ours, alternate.theirs))
    torch_version = f"plain loop, {_table.named('torch')}"
    return _table.Row(
        SPEED, "images/s", ours, theirs, torch_version, f">= {0.97 * theirs:.1f}", spread, ratio
    )


def _accuracy(classifier: Any, alternate: Alternate, data: ImageData) -> _table.Row:
    """The goal is the lower end of the plain loop's 95 % interval (normal approximation)."""
    right = alternate.plain.right(data).double()
    peer = float(right.mean())
    low = peer - 1.96 * math.sqrt(peer * (1 - peer) / len(right))
    with tempfile.TemporaryDirectory() as folder:
        module.finish(classifier, data, Path(folder))
        written = Path(folder) / "evaluation" / "test" / "metrics.json"
        ours = json.loads(written.read_text("utf-8"))["accuracy"]
    spread = f"{ours['low']:.4f} to {ours['high']:.4f}"
    torch_version = f"plain loop, {_table.named('torch')}"
    return _table.Row(
        ACCURACY, "share", ours["value"], peer, torch_version, f">= {low:.4f}", spread
    )


def measure(quick: bool) -> Iterable[_table.Row]:
    """The rows; the full run takes 15 minutes for each of the two."""
    if not FOLDER.is_dir():
        raise SystemExit(f"the part of CIFAR-10 is not at {FOLDER}")
    data = ImageData.from_folder(FOLDER, val_share=0.1, batch_size=BATCH)
    if quick:
        yield _table.stored(__file__, ACCURACY, "share")
        yield _speed(data, _train(data, epochs=5, limit=12)[1], 12 * BATCH)
        return
    _, trial = _train(data, epochs=2)
    epochs = int(BUDGET / max(trial.theirs[1], trial.ours[1]))
    print(f"  {epochs} epochs of {len(data.parts['train'])} pictures", flush=True)
    classifier, alternate = _train(data, epochs)
    minutes = [sum(t) / 60 for t in (alternate.ours, alternate.theirs)]
    print(f"  minutes: renshu {minutes[0]:.1f}, plain torch {minutes[1]:.1f}", flush=True)
    yield _accuracy(classifier, alternate, data)
    yield _speed(data, alternate, len(data.parts["train"]))


if __name__ == "__main__":
    _table.main(__file__, measure)
