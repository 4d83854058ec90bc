"""Any average of the weights that torch.optim.swa_utils.AveragedModel can keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renshu.callbacks.ema import EMA, State
from renshu.errors import ConfigError

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class WeightAveraging(EMA):
    """Trains with the plain weights; validates, saves and ends with their average.

    The numbers are those of `AveragedModel`, except that buffers that are no floating-point
    numbers are always the current ones, and that before the first update the plain weights are
    used. Override `should_update` to choose when it is updated.

    Args:
        device: where the average is kept; None is where the weights are.
        use_buffers: average floating-point buffers too.
        kwargs: `avg_fn` (average, weights, count → new average, a Tensor each) or `multi_avg_fn`
            (the same with lists, in place); without them all updates weigh the same.
    """

    def __init__(
        self,
        device: torch.device | str | int | None = None,
        use_buffers: bool = True,
        **kwargs: Any,
    ) -> None:
        for name in kwargs.keys() - {"avg_fn", "multi_avg_fn"} or (
            kwargs if len(kwargs) > 1 else ()
        ):
            raise ConfigError(f"WeightAveraging({name}=…)", allowed="avg_fn or multi_avg_fn")
        self._function = kwargs
        super().__init__(use_buffers=use_buffers, device=device)

    def _forget(self) -> None:
        super()._forget()
        self._count, self._epoch = 0, -1

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether to update; asked after each optimiser step and at the end of each epoch.

        Args:
            step_idx: the step, from 0; None at the end of an epoch.
            epoch_idx: the epoch, from 0; None after a step.
        """
        return step_idx is not None

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            if self.should_update(step_idx=self._step - 1):
                self._add()

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self.should_update(epoch_idx=trainer.current_epoch):
            self._add()

    def _add(self) -> None:
        super()._add()
        self._count += 1

    def _blend(self, averages: list[Tensor], weights: list[Tensor]) -> None:
        if not self._function:
            torch._foreach_lerp_(averages, weights, 1 / (self._count + 1))  # type: ignore
            return
        count = torch.tensor(self._count)
        if function := self._function.get("multi_avg_fn"):
            function(averages, weights, count)
            return
        for average, weight in zip(averages, weights, strict=True):
            average.copy_(self._function["avg_fn"](average, weight.detach(), count))

    def state_dict(self) -> State:
        return super().state_dict() | {"count": self._count}

    def on_load_checkpoint(self, trainer: Trainer, module: Module, checkpoint: State) -> None:
        super().on_load_checkpoint(trainer, module, checkpoint)
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        self._count = state["count"] if state else 0
