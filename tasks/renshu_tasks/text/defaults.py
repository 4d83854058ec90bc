"""What to start with on each kind of device, with reason and source; an option always wins.

`resolve` is a pure function of a recorded description, so it is tested for devices that are not
at hand. Rows that were not measured say so once, when they are used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from renshu.errors import ConfigError
from renshu.messages import say


@dataclass(frozen=True)
class Device:
    """A device as it was found, or as it was recorded elsewhere.

    `cores` are those this process may use.
    """

    kind: Literal["cpu", "cuda", "tpu", "mps"]
    name: str
    cores: int


@dataclass(frozen=True)
class Defaults:
    """Settings for one device.

    `batch_size` is in texts; `num_workers` the most that is useful, the cores at hand may allow
    fewer; `precision` is what `--trainer.precision auto` takes. `source` is "measured: <command>"
    or, after "not measured", the publication that the row follows.
    """

    batch_size: int
    precision: str
    num_workers: int
    compile: bool
    reason: str
    source: str


_TABLE = {
    "cpu": Defaults(32, "32-true", 0, False,
        "bfloat16 was slower than float32 without AMX, and compiling took longer than it spared;"
        " texts are read from memory-mapped files, so a worker would only cost",
        "measured: python benchmarks/text.py"),
    "t4": Defaults(32, "16-mixed", 2, False,
        "no bfloat16 before Ampere", "not measured; NVIDIA, Mixed Precision Training guide"),
    "a100": Defaults(64, "bf16-mixed", 4, False,
        "bfloat16 needs no scaler; lengths differ, so compiling would be repeated",
        "not measured; NVIDIA A100 white paper"),
    "h100": Defaults(128, "bf16-mixed", 4, False,
        "as A100, with twice the memory", "not measured; NVIDIA H100 white paper"),
    "gpu": Defaults(32, "16-mixed", 2, False,
        "a GPU that is not in the table: float16 works since Volta",
        "not measured; PyTorch, Automatic Mixed Precision"),
    "v5e": Defaults(128, "bf16-true", 4, False,
        "multiples of 128 fill the matrix unit", "not measured; Google Cloud TPU guide"),
    "mps": Defaults(32, "32-true", 0, False,
        "autocast on MPS is incomplete", "not measured; PyTorch, MPS backend"),
}  # fmt: skip


def resolve(device: Device, texts: int) -> Defaults:
    """The table's row for a device; the batch shrinks so that an epoch has at least 16 steps.

    Raises ConfigError for an unknown kind of device.
    """
    row = _TABLE[_key(device)]
    if not row.source.startswith("measured"):
        say(f"the defaults for {device.name} are {row.source}", once=True)
    batch = min(row.batch_size, max(texts // 16, 8))
    return Defaults(
        batch_size=1 << (batch.bit_length() - 1),
        precision=row.precision,
        num_workers=min(row.num_workers, max(device.cores - 1, 0)),
        compile=row.compile,
        reason=row.reason,
        source=row.source,
    )


def precision(accelerator: str = "auto") -> str:
    """The table's precision for the device at hand; what is not plain float32 is said."""
    device = describe_device(accelerator)
    found = _TABLE[_key(device)].precision
    if found != "32-true":
        say(f"precision for {device.name}: {found}; --trainer.precision chooses another")
    return found


def describe_device(accelerator: str = "auto") -> Device:
    """The device at hand: GPU, Apple GPU or CPU; `accelerator="cpu"` looks no further."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        found: Any = torch.cuda.get_device_properties(0)
        return Device("cuda", found.name, cores or 1)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return Device("mps", "Apple GPU", cores or 1)
    return Device("cpu", "CPU", cores or 1)


def _key(device: Device) -> str:
    if device.kind == "cuda":
        words = device.name.lower().replace("-", " ").split()
        return next((key for key in ("t4", "a100", "h100") if key in words), "gpu")
    keys = {"cpu": "cpu", "mps": "mps", "tpu": "v5e"}
    if device.kind not in keys:
        raise ConfigError(
            f"there are no defaults for {device.kind!r}", allowed=", ".join([*keys, "cuda"])
        )
    return keys[device.kind]
