"""Stopping a fit when a metric no longer improves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from renshu.callbacks.monitor import Watcher
from renshu.intervals import Interval

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


@dataclass(eq=False)
class EarlyStopping(Watcher):
    """Stop when a metric has not improved for `patience` checks.

    A check is made after each validation, or at the end of the epoch where validation runs once
    an epoch or never.

    Args:
        monitor: the metric.
        min_delta: an improvement counts only if it is larger than this.
        patience: checks without improvement until the stop.
        verbose: print improvements and the stop.
        mode: min or max: what is better.
        strict: raise if the metric was not logged by the first validation or the end of the first
            epoch; the state is saved before.
        check_finite: stop when the metric is NaN or infinite.
        stopping_threshold: stop when the metric is better than this.
        divergence_threshold: stop when the metric is worse than this.
        check_on_train_epoch_end: True checks at the end of the epoch, False after validations.
        log_rank_zero_only: kept for Lightning's signature; only the first process prints anyway.

    Attributes:
        wait_count: checks since the last improvement.
        stopped_epoch: epoch of the stop, 0 if there was none.
        stopping_reason_message: why it stopped, as a sentence; None if there was no stop.
    """

    monitor: str
    min_delta: float = 0.0
    patience: int = 3
    verbose: bool = False
    mode: str = "min"
    strict: bool = True
    check_finite: bool = True
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    check_on_train_epoch_end: bool | None = None
    log_rank_zero_only: bool = False

    state = ("wait_count", "stopped_epoch", "stopping_reason_message", "_best", "_asked")

    def start(self) -> None:
        super().start()
        self.wait_count = self.stopped_epoch = 0
        self.stopping_reason_message: str | None = None
        self._best = math.inf if self.mode == "min" else -math.inf

    @property
    def best_score(self) -> Tensor:
        """Best value so far, 0-dim float64; infinite before the first check."""
        return torch.tensor(self._best, dtype=torch.float64)

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        self.act_every(Interval(1, "epochs"), trainer, self.check_on_train_epoch_end)
        # Resumed where it had stopped: it stops again, unless patience was raised since.
        if self.stopping_reason_message and not 0 < self.wait_count < self.patience:
            trainer.should_stop = True

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        value = self.value(trainer)
        if value is not None and not trainer.options.fast_dev_run:
            self._check(trainer, value)
        self.refuse_missing(trainer)

    def _check(self, trainer: Trainer, value: float) -> None:
        margin = abs(self.min_delta) * (1 if self.mode == "min" else -1)
        improved = math.isfinite(value) and self._better(value + margin, self._best)
        if improved:
            self._best, self.wait_count = value, 0
        if text := self._reason(value, improved):
            trainer.should_stop, self.stopped_epoch = True, trainer.current_epoch
            self.stopping_reason_message = text
        if self.verbose and (improved or text):
            trainer.lightning_module.print(text or f"{self.monitor} improved to {value:.6g}")

    def _reason(self, value: float, improved: bool) -> str:
        """Why to stop, as a sentence; empty if not."""
        stop, worst = self.stopping_threshold, self.divergence_threshold
        now = f"{self.monitor}={value:.6g}"
        if self.check_finite and not math.isfinite(value):
            return f"{now} is not finite"
        if stop is not None and self._better(value, stop):
            return f"{now} is better than {stop}"
        if worst is not None and self._better(worst, value):
            return f"{now} is worse than {worst}"
        self.wait_count += not improved
        if improved or self.wait_count < self.patience:
            return ""
        text = f"{self.monitor} has not improved for {self.wait_count} checks"
        return f"{text}; the best was {self._best:.6g}"

    def _better(self, score: float, than: float) -> bool:
        return score < than if self.mode == "min" else score > than
