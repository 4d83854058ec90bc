"""The device at hand, and which row of a table of defaults is its own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from renshu.errors import ConfigError
from renshu.messages import say


@dataclass(frozen=True)
class Device:
    """A device as it was found, or as it was recorded elsewhere.

    `memory` is in bytes (of the machine for a CPU), `cores` are those this process may use.
    """

    kind: Literal["cpu", "cuda", "tpu", "mps"]
    name: str
    memory: int = 0
    cores: int = 1


def describe_device(accelerator: str = "auto") -> Device:
    """The device at hand: GPU, Apple GPU or CPU; `accelerator="cpu"` looks no further."""
    import torch

    from renshu.utilities import usable_cores

    cores = usable_cores()
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        found: Any = torch.cuda.get_device_properties(0)
        return Device("cuda", found.name, found.total_memory, cores)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if os.name == "posix" else 0
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return Device("mps", "Apple GPU", memory, cores)
    return Device("cpu", "CPU", memory, cores)


def table_key(device: Device) -> str:
    """cpu, t4, a100, h100, gpu, v5e or mps; ConfigError for an unknown kind of device."""
    if device.kind == "cuda":
        words = device.name.lower().replace("-", " ").split()
        return next((key for key in ("t4", "a100", "h100") if key in words), "gpu")
    keys = {"cpu": "cpu", "mps": "mps", "tpu": "v5e"}
    if device.kind not in keys:
        raise ConfigError(
            f"there are no defaults for {device.kind!r}", allowed=", ".join([*keys, "cuda"])
        )
    return keys[device.kind]


def tell_precision(device: Device, precision: str) -> str:
    """The precision itself; what is not plain float32 is said."""
    if precision != "32-true":
        say(f"precision for {device.name}: {precision}; --trainer.precision chooses another")
    return precision
