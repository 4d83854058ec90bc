"""ThroughputMonitor: speeds of a clock that the test moves."""

from __future__ import annotations

import time
from typing import Any

import pytest

import tiny
from renshu.callbacks import ThroughputMonitor
from renshu.loggers import Logger


class Paced(tiny.Tiny):
    """A training batch takes a second, a validation batch four."""

    now = 10.0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.now += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.now += 4


class Kept(Logger):
    """A logger that keeps the speeds it gets."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        if found := {k: v for k, v in metrics.items() if k.startswith(("train/", "validate/"))}:
            self.records.append((step, found))


@pytest.fixture
def run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    folders = iter(range(9))

    def fit(module: Paced, monitor: ThroughputMonitor, **options: Any) -> list[Any]:
        monkeypatch.setattr(time, "perf_counter", lambda: module.now)
        logger = Kept()
        fitter = tiny.trainer(
            tmp_path / str(next(folders)), monitor, logger=logger, max_epochs=2, **options
        )
        fitter.fit(module, tiny.loader(), tiny.loader(16))
        return logger.records

    return fit


# capabilities C4 E
def test_speeds_of_training_leave_validations_out(run: Any) -> None:
    monitor = ThroughputMonitor(lambda batch: len(batch[0]), lambda batch: batch[0].numel())
    records = run(Paced(), monitor, log_every_n_steps=3)
    rates = {"batches": 1, "samples": 8, "items": 32}
    expected = {f"train/device/{unit}_per_sec": rate for unit, rate in rates.items()}
    train = [(step, values) for step, values in records if "train/time" in values]
    for (step, values), batches in zip(train, (3, 6), strict=True):
        assert step == batches - 1
        counts = {"batches": batches, "samples": 8 * batches, "lengths": 32 * batches}
        totals = {f"train/{name}": count for name, count in counts.items()}
        assert values == expected | totals | {"train/time": batches}
    validated = [values for _, values in records if "validate/time" in values]
    assert [values["validate/device/samples_per_sec"] for values in validated] == [2, 2]
    assert [values["validate/time"] for values in validated] == [8, 8]


def test_flops_of_the_module_and_the_share_of_the_devices_peak(run: Any) -> None:
    class Counted(Paced):
        flops_per_batch = 600

    monitor = ThroughputMonitor(lambda batch: 8, available_flops=1000)
    values = run(Counted(), monitor, log_every_n_steps=2, limit_val_batches=0)[-1][1]
    assert values["train/device/flops_per_sec"] == 600
    assert values["train/device/mfu"] == 0.6


def test_a_speed_is_that_of_the_newest_window(run: Any) -> None:
    class Slower(Paced):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.now += self.global_step  # 0, 1, 2 … seconds more
            return super().training_step(batch, batch_idx)

    monitor = ThroughputMonitor(lambda batch: 8, window_size=2)
    records = run(Slower(), monitor, log_every_n_steps=1, limit_val_batches=0)
    found = [values["train/device/batches_per_sec"] for _, values in records]
    # Batch k takes k seconds; from the third on it is the speed of the newest two.
    assert found == pytest.approx([1, 2 / 3, *(2 / (2 * k - 1) for k in range(3, 9))])
