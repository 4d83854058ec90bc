"""How several devices work together. Each strategy is the same small interface."""

from __future__ import annotations

import torch

from renshu.errors import ConfigError, unknown
from renshu.strategies.single import SingleDevice

__all__ = ["SingleDevice", "make_strategy"]


def make_strategy(name: str, devices: list[torch.device], num_nodes: int) -> SingleDevice:
    """The strategy for the option `strategy`; ConfigError if it is unknown or cannot be had."""
    if len(devices) > 1 or num_nodes > 1:
        raise ConfigError(
            "training on several devices is not built yet",
            where=f"devices={len(devices)}, num_nodes={num_nodes}",
            allowed="devices=1, num_nodes=1",
        )
    if name not in ("auto", "single_device"):
        raise unknown("strategy", name, ("auto", "single_device"))
    return SingleDevice(devices[0])
