"""What the built-in callbacks cost in a step: counted calls, and no value read from the device."""

from __future__ import annotations

import collections
import gc
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import renshu
from renshu import callbacks as built_in
from small_models import Classifier, digits

EACH: dict[str, tuple[Callable[[], Any], int]] = {
    "Timer": (lambda: built_in.Timer("00:01:00:00"), 12),
    "LambdaCallback": (lambda: built_in.LambdaCallback(on_train_batch_end=nothing), 3),
    "DeviceStatsMonitor": (built_in.DeviceStatsMonitor, 1),
    "GradientAccumulationScheduler": (lambda: built_in.GradientAccumulationScheduler({0: 1}), 1),
    "ThroughputMonitor": (lambda: built_in.ThroughputMonitor(lambda batch: 8), 6),
    "StochasticWeightAveraging": (lambda: built_in.StochasticWeightAveraging(0.1, 1), 3),
    "WeightAveraging": (built_in.WeightAveraging, 25),
    "EMA": (built_in.EMA, 25),
    "BackboneFinetuning": (lambda: built_in.BackboneFinetuning(0), 1),
    "ModelPruning": (lambda: built_in.ModelPruning("l1_unstructured"), 1),
    "OnExceptionCheckpoint": (lambda: built_in.OnExceptionCheckpoint("x"), 1),
    "LearningRateMonitor": (built_in.LearningRateMonitor, 8),
    "EarlyStopping": (lambda: built_in.EarlyStopping("train_loss"), 1),
    "ProgressBar": (built_in.ProgressBar, 4),
}
"""Callback → how it is made, and how many Python calls it may add to a step."""


def nothing(*_: Any) -> None: ...


class WithBackbone(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = self.net[0]


def batches(steps: int) -> list[Any]:
    images, labels = digits(8)
    return [(images, labels)] * steps


def fit(steps: int, *callbacks: Any) -> None:
    renshu.Trainer(
        accelerator="cpu", max_epochs=1, log_every_n_steps=steps, seed=0, callbacks=list(callbacks),
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
    ).fit(WithBackbone(), batches(steps))  # fmt: skip


def calls(steps: int, *callbacks: Any) -> int:
    found = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal found
        found += event == "call"

    gc.collect()
    gc.disable()  # whoever listens to it (hypothesis does) would be counted whenever it runs
    sys.setprofile(profile)
    try:
        fit(steps, *callbacks)
    finally:
        sys.setprofile(None)
        gc.enable()
    return found


@cache
def without() -> int:
    """The same without callbacks."""
    fit(2)
    return calls(30) - calls(10)


class Syncs(TorchDispatchMode):
    """Counts operations that read a value of the device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        names = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal")
        return sum(self.counts[name] for name in names)


# capabilities E
@pytest.mark.parametrize("name", EACH)
def test_a_step_costs_few_calls_and_no_sync(name: str) -> None:
    """Counted as the difference of two lengths, so that what happens once does not count."""
    make, allowed = EACH[name]
    if name == "DeviceStatsMonitor":
        pytest.importorskip("psutil")
    fit(2, make())  # what is imported at the first use
    ours = calls(30, make()) - calls(10, make())
    assert ours - without() <= 20 * allowed

    def syncs(steps: int) -> int:
        with Syncs() as seen:
            fit(steps, make())
        return seen.total

    assert syncs(30) == syncs(10)


def test_every_name_of_lightnings_callbacks_is_here() -> None:
    """All but an interface, what searches before training, and what looks for diverging steps."""
    lightning = pytest.importorskip("pytorch_lightning", reason="needs renshu[parity]")
    elsewhere = {"BatchSizeFinder", "LearningRateFinder", "Checkpoint", "SpikeDetection"}
    missing = set(lightning.callbacks.__all__) - set(built_in.__all__)
    assert missing <= elsewhere
    assert all(getattr(built_in, name) for name in built_in.__all__)
    assert torch.is_grad_enabled()
