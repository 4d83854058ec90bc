"""Low-rank updates: whether they learn at all, and what merging them changes."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from renshu.callbacks.callback import Callback
from renshu.errors import RunError


class LoraWatch(Callback):
    """Stops a run whose low-rank updates get no gradient, naming the first.

    In the first step each B has one (A has none, since B starts at 0), in the second each A: else
    nothing is learned and the loss alone would not tell.
    """

    def on_before_optimizer_step(self, trainer: Any, module: Any, optimizer: Optimizer) -> None:
        step = trainer.global_step
        if step > 1:
            return
        kind = ".lora_B." if step == 0 else ".lora_A."
        for name, parameter in module.named_parameters():
            if kind not in name:
                continue
            gradient = parameter.grad
            if gradient is None or not torch.isfinite(gradient).all() or not gradient.any():
                raise RunError(
                    "a low-rank update gets no gradient, so it would learn nothing",
                    where=f"step {step + 1}, {name}",
                    mend="--training.checkpointing false, or other --model.lora_targets",
                )


def merged(model: Any) -> Any:
    """The network with its low-rank updates added to the weights; itself if there are none."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model
