"""Gradient accumulation that changes from epoch to epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.optim import LBFGS

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class GradientAccumulationScheduler(Callback):
    """Sets the batches of an optimiser step by epoch.

    Args:
        scheduling: epoch (from 0) → batches a step from then on; before the first it is 1.

    Raises:
        ConfigError: an epoch or number out of range; `accumulate_grad_batches` is given too; manual
            optimisation or LBFGS, which cannot accumulate.
    """

    def __init__(self, scheduling: dict[int, int]) -> None:
        numbers = [*scheduling, *scheduling.values()]
        whole = all(isinstance(number, int) for number in numbers)
        if not scheduling or not whole or min(scheduling) < 0 or min(scheduling.values()) < 1:
            said = f"GradientAccumulationScheduler(scheduling={scheduling!r})"
            raise ConfigError(said, allowed="{epoch from 0: batches from 1, …}")
        self.scheduling = {0: 1} | scheduling

    def going_to_accumulate_grad_batches(self) -> bool:
        """Whether any epoch accumulates."""
        return max(self.scheduling.values()) > 1

    def get_accumulate_grad_batches(self, epoch: int) -> int:
        """Batches of an optimiser step in this epoch."""
        return self.scheduling[max(start for start in self.scheduling if start <= epoch)]

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        lbfgs = any(isinstance(optimizer, LBFGS) for optimizer in trainer.optimizers)
        refused = {
            "accumulate_grad_batches": trainer.options.accumulate_grad_batches != 1,
            "manual optimisation": not module.automatic_optimization,
            "LBFGS": lbfgs and self.going_to_accumulate_grad_batches(),
        }
        for name, found in refused.items():
            if found:
                said = f"GradientAccumulationScheduler and {name} exclude each other"
                raise ConfigError(said, allowed="one of them")

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        self.on_train_epoch_start(trainer, module)  # for a run resumed inside an epoch

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        trainer.accumulate_grad_batches = self.get_accumulate_grad_batches(trainer.current_epoch)
