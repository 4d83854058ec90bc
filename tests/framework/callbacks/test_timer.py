"""Timer: what it measures, when it stops training, and that a resumed run goes on counting."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest

import tiny
from renshu.callbacks import Timer
from renshu.errors import ConfigError
from small_models import Classifier, loader, trainer


class Clock:
    """Time that passes only when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


class Slow(Classifier):
    """Each batch takes a second of training, two of validation, three of testing."""

    clock: Any = None

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.clock.now += 1
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.clock.now += 2

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        self.clock.now += 3


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    module = Slow()
    module.clock = Clock(monkeypatch)
    return module


# capabilities E
def test_each_stage_is_measured(slow: Slow) -> None:
    timer = Timer()
    run = trainer(callbacks=[timer], num_sanity_val_steps=0)
    assert timer.start_time() is None
    assert timer.time_elapsed() == 0
    run.fit(slow, loader(32), loader(16))
    run.test(slow, loader(24), verbose=False)
    assert timer.time_elapsed("validate") == 2 * 2
    assert timer.time_elapsed() == timer.time_elapsed("train") == 4 + 2 * 2
    assert timer.time_elapsed("test") == 3 * 3
    assert timer.end_time("test") == timer.start_time("test") + 9  # type: ignore[operator]
    assert timer.time_remaining() is None


@pytest.mark.parametrize(
    ("duration", "interval", "steps"),
    [
        ("00:00:00:05", "step", 5),
        (timedelta(seconds=5), "epoch", 12),
        ({"seconds": 1, "minutes": 1}, "step", 24),
    ],
)
def test_training_stops_when_the_time_is_up(
    slow: Slow, duration: Any, interval: Any, steps: int, capfd: pytest.CaptureFixture[str]
) -> None:
    timer = Timer(duration, interval)
    run = trainer(callbacks=[timer], max_epochs=2)
    run.fit(slow, loader(96))
    assert run.global_step == steps
    assert ("time limit" in capfd.readouterr().err) == (steps < 24)
    assert (timer.time_remaining() <= 0) == (steps < 24)  # type: ignore[operator]


def test_a_resumed_run_has_used_up_its_time(slow: Slow, tmp_path: Any) -> None:
    def fit(seconds: int, **how: Any) -> Any:
        timer = Timer({"seconds": seconds}, verbose=False)
        run = tiny.trainer(tmp_path, timer, max_epochs=2)
        run.fit(slow, loader(96), **how)
        return run.global_step

    assert fit(5) == 5
    assert fit(9, ckpt_path="last") == 9
    assert fit(9, ckpt_path="last") == 9


@pytest.mark.parametrize("duration", ["5", "1:2:3", "a:b:c:d", {"fortnights": 1}])
def test_a_duration_that_is_none_is_refused(duration: Any) -> None:
    with pytest.raises(ConfigError, match="DD:HH:MM:SS"):
        Timer(duration)


def test_an_unknown_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="step, epoch"):
        Timer(interval="steps")  # type: ignore[arg-type]
