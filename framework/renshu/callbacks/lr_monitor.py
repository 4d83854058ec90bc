"""Learning rates as logged values."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError, unknown
from renshu.results import to_host

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


@dataclass(eq=False)
class LearningRateMonitor(Callback):
    """Sends the rate that each step used to the loggers.

    Names are Lightning's: `lr-Adam`; with several parameter groups `lr-Adam/pg1` or the group's
    `name`; a second optimiser of one class is `lr-Adam-1`; a scheduler's `name` replaces all before
    the `/`.

    Args:
        logging_interval: "step" at the trainer's own log interval, "epoch" at the end of each
            epoch, None at both.
        log_momentum: momentum too (or beta1), as `…-momentum`.
        log_weight_decay: weight decay too, as `…-weight_decay`.
    """

    logging_interval: Literal["step", "epoch"] | None = None
    log_momentum: bool = False
    log_weight_decay: bool = False

    def __post_init__(self) -> None:
        if (interval := self.logging_interval) not in (None, "step", "epoch"):
            raise unknown("logging_interval", interval, ("step", "epoch"), "LearningRateMonitor")
        wanted = {"lr": True, "momentum": self.log_momentum, "weight_decay": self.log_weight_decay}
        self._keys = [key for key, logged in wanted.items() if logged]

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        from renshu.planning import log_interval

        if not trainer.loggers and not trainer.options.fast_dev_run:
            raise ConfigError("LearningRateMonitor needs a logger", mend="Trainer(logger=True)")
        if self.logging_interval != "epoch":
            self.interval = log_interval(trainer.options)
        self._optimizers, self._used = trainer.optimizers, []
        self._names(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int
    ) -> None:
        """Before the step, since schedulers run before the log event after it."""
        groups = [group for optimizer in self._optimizers for group in optimizer.param_groups]
        self._used = [_value(group, key) for group in groups for key in self._keys]

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        if self.logging_interval != "step":
            self.on_train_batch_start(trainer, module, None, 0)
            self._log(trainer, trainer.global_step)

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        self._log(trainer, None)

    def _log(self, trainer: Trainer, step: int | None) -> None:
        # A group that was added after the step began has no value yet.
        rates = dict(zip(self._names(trainer), to_host(self._used), strict=False))
        trainer.log_metrics(rates, step)
        trainer.epoch_metrics.update({name: torch.tensor(rate) for name, rate in rates.items()})

    def _names(self, trainer: Trainer) -> list[str]:
        """The names of all that is logged, by optimiser, group and key."""
        own = {id(c.scheduler.optimizer): c.name for c in trainer.lr_scheduler_configs}
        names, seen = list[str](), Counter[str]()
        for optimizer in self._optimizers:
            base = own.get(id(optimizer)) or f"lr-{type(optimizer).__name__}"
            seen[base] += 1
            base = base if seen[base] == 1 else f"{base}-{seen[base] - 1}"
            several = len(optimizer.param_groups) > 1
            for number, group in enumerate(optimizer.param_groups, 1):
                part = group.get("name", f"pg{number}" if several else None)
                name = base if part is None else f"{base}/{part}"
                names += [name if key == "lr" else f"{name}-{key}" for key in self._keys]
        if twice := [name for name in names if names.count(name) > 1]:
            allowed = "a name of its own for each parameter group, or none"
            raise ConfigError(f"two rates are named {twice[0]!r}", allowed=allowed)
        return names


def _value(group: dict[str, Any], key: str) -> Any:
    value = group["betas"][0] if key == "momentum" and "betas" in group else group.get(key, 0.0)
    return value.clone() if isinstance(value, Tensor) else value
