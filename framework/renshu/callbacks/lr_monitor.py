"""Learning rates as logged values."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError
from renshu.results import to_host

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


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

    def __init__(
        self,
        logging_interval: Literal["step", "epoch"] | None = None,
        log_momentum: bool = False,
        log_weight_decay: bool = False,
    ) -> None:
        if logging_interval not in (None, "step", "epoch"):
            raise ConfigError(
                f"logging_interval={logging_interval!r}",
                where="LearningRateMonitor",
                allowed="step, epoch, None",
            )
        self.logging_interval = logging_interval
        self.log_momentum = log_momentum
        self.log_weight_decay = log_weight_decay

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        from renshu.planning import log_interval

        if not trainer.loggers and not trainer.options.fast_dev_run:
            raise ConfigError("LearningRateMonitor needs a logger", mend="Trainer(logger=True)")
        self._groups = dict[str, tuple[dict[str, Any], str]]()
        self._number = 0
        self._used: dict[str, Any] = {}
        epochs_only = self.logging_interval == "epoch"
        self.interval = None if epochs_only else log_interval(trainer.options)

    def on_train_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int
    ) -> None:
        """Before the step, since schedulers run before the log event after it."""
        number = sum(len(optimizer.param_groups) for optimizer in trainer.optimizers)
        if number != self._number:
            self._number, self._groups = number, self._name_groups(trainer)
        self._used = {n: _copy(group.get(key, 0.0)) for n, (group, key) in self._groups.items()}

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self.logging_interval != "step":
            self._log(trainer)

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        trainer.log_metrics(dict(zip(self._used, to_host(self._used.values()), strict=True)))

    def _name_groups(self, trainer: Trainer) -> dict[str, tuple[dict[str, Any], str]]:
        """Name → parameter group, and the group's key, of everything that is logged."""
        found: dict[str, tuple[dict[str, Any], str]] = {}
        names = {id(c.scheduler.optimizer): c.name for c in trainer.lr_scheduler_configs}
        seen: Counter[str] = Counter()
        for optimizer in trainer.optimizers:
            base = names.get(id(optimizer)) or f"lr-{type(optimizer).__name__}"
            seen[base] += 1
            base = base if seen[base] == 1 else f"{base}-{seen[base] - 1}"
            several = len(optimizer.param_groups) > 1
            for number, group in enumerate(optimizer.param_groups, 1):
                part = group.get("name", f"pg{number}" if several else None)
                name = base if part is None else f"{base}/{part}"
                if name in found:
                    raise ConfigError(
                        f"two parameter groups of {type(optimizer).__name__} are named {part!r}",
                        where="configure_optimizers",
                        allowed="a name of its own for each group, or none",
                    )
                found[name] = group, "lr"
                if self.log_momentum:
                    key = "betas" if "betas" in group else "momentum"
                    found[f"{name}-momentum"] = group, key
                if self.log_weight_decay:
                    found[f"{name}-weight_decay"] = group, "weight_decay"
        return found


def _copy(value: Any) -> Any:
    value = value[0] if isinstance(value, tuple) else value
    return value.clone() if isinstance(value, Tensor) else value
