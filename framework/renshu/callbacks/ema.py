"""Exponential moving average of the weights, as torch.optim.swa_utils keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


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
    """

    def __init__(
        self,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
        use_buffers: bool = True,
    ) -> None:
        if not 0 <= decay <= 1:
            raise ConfigError(f"decay={decay}", where="EMA", allowed="0 to 1")
        if update_every_n_steps < 1:
            raise ConfigError(
                f"update_every_n_steps={update_every_n_steps}", where="EMA", allowed="1, 2, 3 …"
            )
        self.decay = decay
        self.update_every_n_steps = update_every_n_steps
        self.update_starting_at_step = update_starting_at_step
        self.update_starting_at_epoch = update_starting_at_epoch
        self.use_buffers = use_buffers
        self._forget()

    def _forget(self) -> None:
        self._weights: dict[str, Tensor] = {}  # in the module, by their first name
        self._average: dict[str, Tensor] = {}  # empty before the first update
        self._swapped = False  # the module holds the average, and _average the plain weights
        self._step = 0
        self._training = False

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
        self._weights = {name: tensor for name, tensor, _ in self._find(module)}
        if self._average:
            self._average = {
                name: self._average.get(name, tensor).detach().to(tensor, copy=True)
                for name, tensor in self._weights.items()
            }
        self._training = True

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step > self._step and self.should_update(step - 1, trainer.current_epoch):
            self._step = step
            self._update()

    @torch.no_grad()
    def _update(self) -> None:
        weights = list(self._weights.values())
        if not self._average:
            self._average = {name: w.detach().clone() for name, w in self._weights.items()}
        elif weights:
            averages = list(self._average.values())
            torch._foreach_lerp_(averages, weights, 1 - self.decay)  # type: ignore

    def _find(self, module: nn.Module) -> list[tuple[str, Tensor, list[str]]]:
        """What is averaged: first name, tensor, all names of a parameter that has several."""
        found: dict[int, tuple[str, Tensor, list[str]]] = {}
        for name, tensor in module.state_dict(keep_vars=True).items():
            wanted = isinstance(tensor, nn.Parameter) or self.use_buffers
            if wanted and isinstance(tensor, Tensor) and tensor.is_floating_point():
                found.setdefault(id(tensor), (name, tensor, []))[2].append(name)
        return list(found.values())

    # --- using the average

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        if self._training and self._average:
            self._swap()

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        self._swap_back()

    def on_train_end(self, trainer: Trainer, module: Module) -> None:
        # A validation that a signal cut short has not swapped back.
        self._swap_back()
        if self._average:
            self._swap()
        self._training = False

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        self._swap_back()
        self._training = False

    def _swap_back(self) -> None:
        if self._training and self._swapped:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        """Exchange the contents, not the tensors: optimisers and views keep what they refer to."""
        weights, averages = list(self._weights.values()), list(self._average.values())
        held = [weight.detach().clone() for weight in weights]
        torch._foreach_copy_(weights, averages)  # type: ignore
        torch._foreach_copy_(averages, held)  # type: ignore
        self._swapped = not self._swapped

    # --- saving and resuming

    def state_dict(self) -> dict[str, Any]:
        plain = self._average if self._swapped else self._weights
        return {
            "step": self._step,
            "weights": {name: tensor.detach() for name, tensor in plain.items()}
            if self._average
            else {},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._step = state_dict["step"]

    def on_save_checkpoint(
        self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]
    ) -> None:
        if not self._average or self._swapped:
            return
        for first, _, names in self._find(module):
            for name in names:
                checkpoint["state_dict"][name] = self._average[first]

    def on_load_checkpoint(
        self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]
    ) -> None:
        state = checkpoint.get("callbacks", {}).get(self.state_key)
        plain = state["weights"] if state else {}
        for first, _, names in self._find(module):
            if first not in plain:
                continue
            self._average[first] = checkpoint["state_dict"][first]
            for name in names:
                checkpoint["state_dict"][name] = plain[first]


EMAWeightAveraging = EMA
"""Lightning's name."""
