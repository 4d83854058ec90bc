"""One process on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class SingleDevice:
    """The strategy interface, and its simplest case.

    Attributes:
        device: where the module and its batches live.
        rank: this process among `world` processes.
        local_rank: this process among those of its machine.
        world: how many processes take part.
        broken: this process has failed: it must not wait for the others any more.
    """

    broken = False

    def __init__(self, device: torch.device):
        self.device = device
        self.rank = self.local_rank = 0
        self.world = 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def place(self, module: nn.Module) -> None:
        """Move the module to the device, in place."""
        module.to(self.device)

    def step(self, module: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
        """What the loop calls in place of `method`, so that gradients come out averaged."""
        return method

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Tensors become their mean over all processes, in place; all give as many."""

    def synchronise(self, step: Callable[..., Any], now: bool) -> None:
        """Whether the next backward pass after `step`, what `self.step` returned, averages
        gradients; the last of a window does."""

    def gather(self, value: Any, what: str) -> list[Any]:
        """A plain value of every process, by rank. All have to call it; for rare, small values.

        Raises:
            RunError: another process calls it for something else than `what`.
        """
        return [value]

    def sum(self, number: Any) -> Any:
        """A number or tensor summed over all processes."""
        return number
