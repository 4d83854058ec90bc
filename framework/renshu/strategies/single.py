"""One process on one device."""

from __future__ import annotations

import torch
from torch import nn


class SingleDevice:
    """The strategy interface, and its simplest case.

    Attributes:
        device: where the module and its batches live.
        rank: this process among `world` processes.
        world: how many processes take part.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.rank = 0
        self.world = 1

    @property
    def is_global_zero(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def place(self, module: nn.Module) -> None:
        """Move the module to the device, in place."""
        module.to(self.device)
