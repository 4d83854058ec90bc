"""Stopping a fit when a metric no longer improves."""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renshu.callbacks.callback import Callback
from renshu.callbacks.model_checkpoint import ModelCheckpoint
from renshu.callbacks.monitor import (
    KeyWatch,
    better,
    check_mode,
    monitored,
    validates_at_epoch_end,
)

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class EarlyStoppingReason(Enum):
    """Why a fit was stopped."""

    NOT_STOPPED = 0
    STOPPING_THRESHOLD = 1
    DIVERGENCE_THRESHOLD = 2
    PATIENCE_EXHAUSTED = 3
    NON_FINITE_METRIC = 4


class EarlyStopping(Callback):
    """Stop when a metric has not improved for `patience` checks.

    A check is made after each validation, or at the end of the epoch where validation runs once
    an epoch or never.

    Args:
        monitor: the metric.
        min_delta: an improvement counts only if it is larger than this.
        patience: checks without improvement until the stop.
        verbose: print improvements and the stop.
        mode: min or max: what is better.
        strict: raise if the metric was not logged by the end of the first epoch (and the first
            validation); the state is saved before.
        check_finite: stop when the metric is NaN or infinite.
        stopping_threshold: stop when the metric is better than this.
        divergence_threshold: stop when the metric is worse than this.
        check_on_train_epoch_end: True checks at the end of the epoch, False after validations.
        log_rank_zero_only: kept for Lightning's signature; only the first process prints anyway.

    Attributes:
        wait_count: checks since the last improvement.
        stopped_epoch: epoch of the stop, 0 if there was none.
        best_score: best value so far, 0-dim float64.
        stopping_reason: an EarlyStoppingReason.
        stopping_reason_message: the same as a sentence, None if there was no stop.
    """

    def __init__(
        self,
        monitor: str,
        min_delta: float = 0.0,
        patience: int = 3,
        verbose: bool = False,
        mode: str = "min",
        strict: bool = True,
        check_finite: bool = True,
        stopping_threshold: float | None = None,
        divergence_threshold: float | None = None,
        check_on_train_epoch_end: bool | None = None,
        log_rank_zero_only: bool = False,
    ) -> None:
        check_mode(mode, "EarlyStopping(mode=)")
        self.monitor = monitor
        self.min_delta = abs(min_delta)
        self.patience = patience
        self.verbose = verbose
        self.mode = mode
        self.strict = strict
        self.check_finite = check_finite
        self.stopping_threshold = stopping_threshold
        self.divergence_threshold = divergence_threshold
        self.check_on_train_epoch_end = check_on_train_epoch_end
        self.log_rank_zero_only = log_rank_zero_only
        self._watch = KeyWatch(monitor, "EarlyStopping")
        self._start()

    def _start(self) -> None:
        self.wait_count = 0
        self.stopped_epoch = 0
        self.stopping_reason = EarlyStoppingReason.NOT_STOPPED
        self.stopping_reason_message: str | None = None
        self._best = math.inf if self.mode == "min" else -math.inf
        self._watch.start()

    @property
    def best_score(self) -> Tensor:
        """Best value so far, 0-dim float64; infinite before the first check."""
        return torch.tensor(self._best, dtype=torch.float64)

    @property
    def state_key(self) -> str:
        return f"EarlyStopping(monitor={self.monitor!r}, mode={self.mode!r})"

    def state_dict(self) -> dict[str, Any]:
        return {
            "wait_count": self.wait_count,
            "stopped_epoch": self.stopped_epoch,
            "best_score": self._best,
            "patience": self.patience,
            "stopping_reason": self.stopping_reason.value,
            "stopping_reason_message": self.stopping_reason_message,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wait_count = state_dict["wait_count"]
        self.stopped_epoch = state_dict["stopped_epoch"]
        self._best = float(state_dict["best_score"])
        self.patience = state_dict["patience"]
        self.stopping_reason = EarlyStoppingReason(state_dict["stopping_reason"])
        self.stopping_reason_message = state_dict["stopping_reason_message"]

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        self._fitting = stage == "fit"
        if self._fitting:
            self._start()

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        wanted = self.check_on_train_epoch_end
        self._at_epoch_end = validates_at_epoch_end(trainer) if wanted is None else wanted

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        if not self._fitting:
            return
        self._watch.validated(trainer)
        if not trainer.sanity_checking and not self._at_epoch_end:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        self._watch.see(trainer)
        if self._at_epoch_end:
            self._check(trainer)

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        if trainer.progress.epochs > 0:
            self._refuse_missing(trainer)

    def on_fit_end(self, trainer: Trainer, module: Module) -> None:
        if not trainer.interrupted:
            self._refuse_missing(trainer)

    def _refuse_missing(self, trainer: Trainer) -> None:
        """After all else of the epoch's end, so that what the run has reached is saved."""
        error = self._watch.error(trainer, after_epoch=True) if self.strict else None
        if error is None:
            return
        for callback in trainer.callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.save(trainer)
        trainer.wait_for_checkpoints()
        raise error

    def _check(self, trainer: Trainer) -> None:
        value = monitored(trainer, self.monitor)
        if value is None or trainer.options.fast_dev_run:
            return
        improved = self._improves(value)
        if improved:
            self._best, self.wait_count = value, 0
        reason, text = self._reason(value, improved)
        if reason is not EarlyStoppingReason.NOT_STOPPED:
            trainer.should_stop = True
            self.stopped_epoch = trainer.current_epoch
            self.stopping_reason, self.stopping_reason_message = reason, text
        if self.verbose and (improved or text):
            trainer.lightning_module.print(text or f"{self.monitor} improved to {value:.6g}")

    def _improves(self, value: float) -> bool:
        margin = self.min_delta if self.mode == "min" else -self.min_delta
        return math.isfinite(value) and better(self.mode, value + margin, self._best)

    def _reason(self, value: float, improved: bool) -> tuple[EarlyStoppingReason, str | None]:
        stop, worst = self.stopping_threshold, self.divergence_threshold
        now = f"{self.monitor}={value:.6g}"
        if self.check_finite and not math.isfinite(value):
            return EarlyStoppingReason.NON_FINITE_METRIC, f"{now} is not finite"
        if stop is not None and better(self.mode, value, stop):
            return EarlyStoppingReason.STOPPING_THRESHOLD, f"{now} is better than {stop}"
        if worst is not None and better(self.mode, worst, value):
            return EarlyStoppingReason.DIVERGENCE_THRESHOLD, f"{now} is worse than {worst}"
        self.wait_count += not improved
        if self.wait_count < self.patience or improved:
            return EarlyStoppingReason.NOT_STOPPED, None
        text = f"{self.monitor} has not improved for {self.wait_count} checks"
        return EarlyStoppingReason.PATIENCE_EXHAUSTED, f"{text}; the best was {self._best:.6g}"
