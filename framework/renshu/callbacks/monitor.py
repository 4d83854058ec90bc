"""What callbacks that watch a metric share: when they act, and a metric that nobody logs."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError, near, unknown
from renshu.intervals import Interval, Progress

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class Watcher(Callback):
    """Watches a metric and acts in `on_interval`: when an interval is due or a validation asks.

    It is its own interval. The metric has to be there at the first validation if its name begins
    with "val" or epochs have no end, else at the end of the first epoch (of the first one with a
    validation, if there is any): `refuse_missing` raises then. A resumed fit needs it no earlier.
    """

    interval: Any = None
    monitor: Any
    mode: str
    strict = True
    _fitting = False
    state: tuple[str, ...] = ()
    """The attributes that a checkpoint keeps."""

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise unknown("mode", self.mode, ("min", "max"), type(self).__name__)
        self.start()

    def start(self) -> None:
        """Forget the fit before."""
        self._asked = 0
        self._validated = self._overdue = self._after_validations = False

    def act_every(self, every: Interval, trainer: Trainer, at_epoch_end: bool | None) -> None:
        """Act at an interval; one of epochs waits for validations unless `at_epoch_end`.

        None acts at the end of an epoch where validation runs once an epoch or never.
        """
        if at_epoch_end is None:
            options = trainer.options
            each = options.check_val_every_n_epoch == 1 and not options.validate_every
            # Of numbers the float 1.0 means the whole epoch, the int 1 every batch.
            once = each and str(options.val_check_interval) in ("None", "1.0")
            at_epoch_end = once or not any(trainer.num_val_batches)
        self._after_validations = every.unit == "epochs" and not at_epoch_end
        self._every, self.interval = every, self

    def count(self, progress: Progress) -> int:
        """How many times it has become due so far."""
        return self._asked + (0 if self._after_validations else self._every.count(progress))

    def batches_until(self, progress: Progress) -> float:
        """After how many more batches, at the earliest, it is due again."""
        return math.inf if self._after_validations else self._every.batches_until(progress)

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        self._fitting = stage == "fit"
        if self._fitting:
            self.start()

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        if not self._fitting or trainer.sanity_checking:
            return
        early = str(self.monitor).startswith("val") or math.isinf(trainer.num_training_batches)
        self._overdue = early and not self._validated and self._missing(trainer)
        self._validated = True
        due = self._after_validations and (trainer.current_epoch + 1) % self._every.size == 0
        self._asked += due or self._overdue

    def on_sanity_check_end(self, trainer: Trainer, module: Module) -> None:
        # A module that logs nothing at all there may wait for the real validation.
        logs = bool(trainer.callback_metrics)
        if self._fitting and logs and str(self.monitor).startswith("val"):
            self._overdue = self._missing(trainer)
            self.refuse_missing(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self._validated or not any(trainer.num_val_batches):
            self._overdue = self._missing(trainer)
            self._asked += self._overdue

    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        if trainer.progress.epochs == 0:  # a limit came before the first epoch's end
            self.on_train_epoch_end(trainer, module)
            self.refuse_missing(trainer)

    def value(self, trainer: Trainer) -> float | None:
        """The newest value of the metric, read from the device; None if it was not logged yet."""
        value = trainer.callback_metrics.get(self.monitor)
        return trainer.agree_on(None if value is None else float(value))

    def save(self, trainer: Trainer) -> None:
        """Save the state of the run, if that is what this callback does."""

    def refuse_missing(self, trainer: Trainer) -> None:
        """Raise ConfigError if the metric should be there by now; the state is saved before."""
        if not self._overdue or not self._missing(trainer):
            return
        for callback in (self, *trainer.callbacks):
            if isinstance(callback, Watcher):
                callback.save(trainer)
        trainer.wait_for_checkpoints()
        names = sorted(trainer.callback_metrics)
        what = f"{type(self).__name__} watches {self.monitor!r}, which was not logged"
        allowed = ", ".join(names) or "nothing was logged"
        mend = near(self.monitor, names) or f"self.log({self.monitor!r}, value) in a step"
        raise ConfigError(what, allowed=allowed, mend=mend)

    def _missing(self, trainer: Trainer) -> bool:
        return self.strict and bool(self.monitor) and self.monitor not in trainer.callback_metrics

    @property
    def state_key(self) -> str:
        return f"{type(self).__qualname__}(monitor={self.monitor!r}, mode={self.mode!r})"

    def state_dict(self) -> dict[str, Any]:
        return {name.lstrip("_"): copy.copy(getattr(self, name)) for name in self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.state:
            setattr(self, name, copy.copy(state_dict[name.lstrip("_")]))
