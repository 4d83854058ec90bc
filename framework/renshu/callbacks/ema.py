"""Exponential moving average of the weights, as torch.optim.swa_utils keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

State = dict[str, Any]


@dataclass(eq=False)
class EMA(Callback):
    """Trains with the plain weights; validates, saves and ends with their moving average.

    After an optimiser step the average becomes `decay * average + (1 - decay) * weights`; the first
    time it is a copy (Polyak & Juditsky 1992; the same numbers as `AveragedModel` with
    `get_ema_multi_avg_fn`). A checkpoint's weights are the average, and what training goes on with
    is kept beside them, so that a resumed run is the same. After the fit the module holds the
    average.

    Args:
        decay: share of the old average that stays, 0 to 1.
        update_every_n_steps: update after every so many optimiser steps.
        update_starting_at_step: first optimiser step (from 0) with an update; until then the plain
            weights are used everywhere.
        update_starting_at_epoch: the same as an epoch; the earlier of both counts.
        use_buffers: average floating-point buffers too, such as batch-norm's statistics. Other
            buffers are always the current ones.
        device: where the average is kept; None is where the weights are.
    """

    decay: float = 0.999
    update_every_n_steps: int = 1
    update_starting_at_step: int | None = None
    update_starting_at_epoch: int | None = None
    use_buffers: bool = True
    device: torch.device | str | int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not 0 <= self.decay <= 1 or self.update_every_n_steps < 1:
            allowed = "a decay from 0 to 1; update_every_n_steps 1, 2, 3 …"
            raise ConfigError(f"{self} cannot be used", allowed=allowed)
        self._forget()

    def _forget(self) -> None:
        # By name, tied ones being one tensor: what is in the module, and the other version of it,
        # which is empty before the first update.
        self._weights, self._average = dict[str, Tensor](), dict[str, Tensor]()
        self._swapped = False  # the module holds the average, and _average the plain weights
        self._training, self._step = False, 0

    def should_update(self, step_idx: int, epoch_idx: int) -> bool:
        """Whether to update after this optimiser step (from 0) of this epoch. May be overridden."""
        first_step, first_epoch = self.update_starting_at_step, self.update_starting_at_epoch
        started = first_step is None and first_epoch is None
        started = started or (first_step is not None and step_idx >= first_step)
        started = started or (first_epoch is not None and epoch_idx >= first_epoch)
        return started and step_idx % self.update_every_n_steps == 0

    # --- averaging

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        if stage == "fit":
            self._forget()

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        self._weights = {
            name: tensor
            for name, tensor in module.state_dict(keep_vars=True).items()
            if isinstance(tensor, Tensor) and tensor.is_floating_point()
            if self.use_buffers or isinstance(tensor, nn.Parameter)
        }
        if self._average:
            self._begin(self._weights | self._average)
        self._training = True

    def _begin(self, values: Mapping[str, Tensor]) -> None:
        """Start the average with a copy of these values."""
        copies = {
            id(w): values[n].detach().to(self.device or w.device, w.dtype, copy=True)
            for n, w in self._weights.items()
        }
        self._average = {name: copies[id(w)] for name, w in self._weights.items()}
        self._pairs = list({id(w): w for w in self._weights.values()}.values()), [*copies.values()]

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step <= self._step or not self.should_update(step - 1, trainer.current_epoch):
            return
        self._step = step
        self._add()

    def _add(self) -> None:
        """Take the weights into the average."""
        if not self._average:
            self._begin(self._weights)
            return
        weights, averages = self._pairs
        if self.device is not None:
            weights = [weight.to(self.device) for weight in weights]
        self._blend(averages, weights)

    def _blend(self, averages: list[Tensor], weights: list[Tensor]) -> None:
        torch._foreach_lerp_(averages, weights, 1 - self.decay)  # type: ignore

    # --- using the average

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        if self._training:
            self._put(average=True)

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        if self._training:
            self._put(average=False)

    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        self._put(average=True)
        self._training = False

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        self.on_validation_end(trainer, module)
        self._training = False

    @torch.no_grad()
    def _put(self, average: bool) -> None:
        """Have the average or the plain weights in the module, the other ones in `_average`.

        Contents are exchanged, not tensors: optimisers and views keep what they refer to.
        """
        if self._average and self._swapped != average:
            weights, averages = self._pairs
            held = [weight.detach().clone() for weight in weights]
            torch._foreach_copy_(weights, averages)  # type: ignore
            torch._foreach_copy_(averages, held)  # type: ignore
            self._swapped = average

    # --- saving and resuming

    def state_dict(self) -> State:
        plain = self._average if self._swapped else self._weights if self._average else {}
        return {"step": self._step, "weights": {n: w.detach() for n, w in plain.items()}}

    def on_save_checkpoint(self, trainer: Trainer, module: Module, checkpoint: State) -> None:
        if not self._swapped:
            checkpoint["state_dict"].update(self._average)

    def on_load_checkpoint(self, trainer: Trainer, module: Module, checkpoint: State) -> None:
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        self._step, plain = (state["step"], state["weights"]) if state else (0, {})
        self._average = {name: checkpoint["state_dict"][name] for name in plain}
        checkpoint["state_dict"].update(plain)


EMAWeightAveraging = EMA
"""Lightning's name."""
