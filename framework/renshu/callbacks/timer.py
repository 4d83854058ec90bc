"""A time limit for training, and how long each stage took."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError, unknown
from renshu.messages import say

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_UNITS = ("days", "hours", "minutes", "seconds")


class Timer(Callback):
    """Measures the stages train, validate and test, and stops training after a duration.

    A resumed run goes on counting. Time depends on the machine, so such a run does not repeat.

    Args:
        duration: "DD:HH:MM:SS", a timedelta, or a dict of its arguments; None only measures.
        interval: "step" looks at the clock after each batch, "epoch" at the end of each epoch.
        verbose: say when the time is up.
    """

    def __init__(
        self,
        duration: str | timedelta | dict[str, int] | None = None,
        interval: Literal["step", "epoch"] = "step",
        verbose: bool = True,
    ) -> None:
        if interval not in ("step", "epoch"):
            raise unknown("interval", interval, ("step", "epoch"), "Timer")
        try:
            if isinstance(duration, str):
                duration = dict(zip(_UNITS, map(int, duration.split(":")), strict=True))
            if isinstance(duration, dict):
                duration = timedelta(**duration)
        except (TypeError, ValueError):
            allowed = '"DD:HH:MM:SS", a timedelta, or a dict such as {"hours": 8}'
            raise ConfigError(f"Timer(duration={duration!r})", allowed=allowed) from None
        self._limit = None if duration is None else duration.total_seconds()
        self._interval, self._verbose = interval, verbose
        self._start, self._end = dict[str, float](), dict[str, float]()
        self._before = 0.0

    def start_time(self, stage: str = "train") -> float | None:
        """When the stage began last, in seconds of `time.monotonic`; None if it did not."""
        return self._start.get(stage)

    def end_time(self, stage: str = "train") -> float | None:
        """When the stage ended last, in seconds of `time.monotonic`; None if it did not."""
        return self._end.get(stage)

    def time_elapsed(self, stage: str = "train") -> float:
        """Seconds in the stage: in training since the run began, else in its last time."""
        before = self._before if stage == "train" else 0.0
        start = self._start.get(stage)
        now = self._end.get(stage, time.monotonic())
        return before if start is None else before + now - start

    def time_remaining(self, stage: str = "train") -> float | None:
        """Seconds until the limit; None without one."""
        return None if self._limit is None else self._limit - self.time_elapsed(stage)

    def _begin(self, stage: str) -> None:
        self._start[stage] = time.monotonic()
        self._end.pop(stage, None)

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        self._begin("train")

    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        self._end["train"] = time.monotonic()

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        self._begin("validate")

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        self._end["validate"] = time.monotonic()

    def on_test_start(self, trainer: Trainer, module: Module) -> None:
        self._begin("test")

    def on_test_end(self, trainer: Trainer, module: Module) -> None:
        self._end["test"] = time.monotonic()

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        self._check(trainer)  # a resumed run may have used up its time

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._interval == "step":
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self._interval == "epoch":
            self._check(trainer)

    def _check(self, trainer: Trainer) -> None:
        if self._limit is None or trainer.should_stop or self.time_elapsed() < self._limit:
            return
        trainer.should_stop = True
        if self._verbose:
            elapsed = timedelta(seconds=int(self.time_elapsed()))
            say(f"the time limit is reached after {elapsed}; training stops")

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        if stage == "fit":
            self._before = 0.0
            self._start.clear()
            self._end.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"time_elapsed": {stage: self.time_elapsed(stage) for stage in self._start}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = state_dict["time_elapsed"].get("train", 0.0)
