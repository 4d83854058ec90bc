"""What to start with on each kind of device, with reason and source; an option always wins.

`resolve` is a pure function of a recorded description, so it is tested for devices that are not
at hand. Rows that were not measured say so once, when they are used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any, Literal

from renshu.errors import ConfigError
from renshu.messages import say

Family = Literal["small", "large"]
"""Small: pictures up to 64 pixels and the small network. Large: torchvision's networks."""


@dataclass(frozen=True)
class Device:
    """A device as it was found, or as it was recorded elsewhere.

    `memory` is in bytes (of the machine for a CPU), `cores` are those this process may use.
    """

    kind: Literal["cpu", "cuda", "tpu", "mps"]
    name: str
    memory: int
    cores: int


@dataclass(frozen=True)
class Defaults:
    """Settings for one device, family of models and size of data set.

    `batch_size` is for one device. `source` is "measured: <command>" or a publication; rows of
    which it says "not measured" are estimates from the device's data sheet.
    """

    batch_size: int
    precision: str
    num_workers: int
    channels_last: bool
    compile: bool
    reason: str
    source: str

    @property
    def measured(self) -> bool:
        return self.source.startswith("measured")


_NOT = "not measured; "

# num_workers here is the most that is useful; the cores at hand may allow fewer.
_TABLE: dict[tuple[str, Family], Defaults] = {
    ("cpu", "small"): Defaults(
        64,
        "32-true",
        0,
        False,
        False,
        "many small steps learn faster than few large ones; compiling takes longer than the run",
        _NOT + "Masters and Luschi, Revisiting Small Batch Training, 2018",
    ),
    ("cpu", "large"): Defaults(
        32,
        "32-true",
        2,
        True,
        False,
        "convolutions of oneDNN are faster in channels-last; workers share the cores",
        _NOT + "PyTorch tutorial, Channels Last Memory Format",
    ),
    ("t4", "small"): Defaults(
        256,
        "16-mixed",
        4,
        True,
        False,
        "no bfloat16 before Ampere; float16 tensor cores want channels-last",
        _NOT + "NVIDIA, Deep Learning Performance Guide, tensor core requirements",
    ),
    ("t4", "large"): Defaults(
        64,
        "16-mixed",
        4,
        True,
        False,
        "16 GB hold ResNet-50 at 224 pixels with 64 pictures in half precision",
        _NOT + "NVIDIA, DeepLearningExamples, ResNet-50 on one 16 GB GPU",
    ),
    ("a100", "small"): Defaults(
        512,
        "bf16-mixed",
        8,
        True,
        False,
        "bfloat16 needs no scaler; small pictures need large batches to fill the device",
        _NOT + "NVIDIA A100 white paper",
    ),
    ("a100", "large"): Defaults(
        256,
        "bf16-mixed",
        8,
        True,
        True,
        "256 pictures of 224 pixels fill the tensor cores and fit in 40 GB",
        _NOT + "NVIDIA, DeepLearningExamples, ResNet-50 on A100",
    ),
    ("h100", "small"): Defaults(
        1024,
        "bf16-mixed",
        12,
        True,
        False,
        "as A100, with about twice its speed",
        _NOT + "NVIDIA H100 white paper",
    ),
    ("h100", "large"): Defaults(
        512,
        "bf16-mixed",
        12,
        True,
        True,
        "as A100, with 80 GB for twice the pictures",
        _NOT + "NVIDIA H100 white paper",
    ),
    ("gpu", "small"): Defaults(
        256,
        "16-mixed",
        4,
        True,
        False,
        "a GPU that the table does not know: float16 works on every generation since Volta",
        _NOT + "PyTorch documentation, Automatic Mixed Precision",
    ),
    ("gpu", "large"): Defaults(
        32,
        "16-mixed",
        4,
        True,
        False,
        "a GPU that the table does not know: 32 pictures of 224 pixels fit in 8 GB",
        _NOT + "PyTorch documentation, Automatic Mixed Precision",
    ),
    ("v5e", "small"): Defaults(
        1024,
        "bf16-true",
        8,
        False,
        False,
        "batches in multiples of 128 fill the matrix unit; XLA compiles and lays out by itself",
        _NOT + "Google Cloud TPU performance guide",
    ),
    ("v5e", "large"): Defaults(
        128,
        "bf16-true",
        8,
        False,
        False,
        "16 GB a chip; batches in multiples of 128 fill the matrix unit",
        _NOT + "Google Cloud TPU performance guide",
    ),
    ("mps", "small"): Defaults(
        128,
        "32-true",
        0,
        False,
        False,
        "memory is shared with the CPU; autocast on MPS is incomplete",
        _NOT + "PyTorch documentation, MPS backend",
    ),
    ("mps", "large"): Defaults(
        32,
        "32-true",
        2,
        False,
        False,
        "memory is shared with the CPU; autocast on MPS is incomplete",
        _NOT + "PyTorch documentation, MPS backend",
    ),
}


def resolve(device: Device, family: Family, image_size: int, samples: int) -> Defaults:
    """The table's row for a device, fitted to the pictures.

    `image_size` is the longer side in pixels, `samples` the training pictures. The batch shrinks
    with the area of pictures above 224 pixels (above 64 for small), and so that an epoch has at
    least 16 steps; it stays a power of two. Raises ConfigError for an unknown kind of device.
    """
    row = _TABLE[(_key(device), family)]
    usual = 64 if family == "small" else 224
    fits = row.batch_size * min(1.0, (usual / max(image_size, 1)) ** 2)
    batch = _power_of_two(min(fits, max(samples / 16, 8)))
    workers = min(row.num_workers, max(device.cores - 1, 0))
    if not row.measured:
        say(f"the defaults for {device.name} are {row.source}", once=True)
    return replace(row, batch_size=batch, num_workers=workers)


def describe_device(accelerator: str = "auto") -> Device:
    """The device at hand: GPU, Apple GPU or CPU; `accelerator="cpu"` looks no further."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        found: Any = torch.cuda.get_device_properties(0)
        return Device("cuda", found.name, found.total_memory, cores or 1)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if os.name == "posix" else 0
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return Device("mps", "Apple GPU", memory, cores or 1)
    return Device("cpu", "CPU", memory, cores or 1)


def _key(device: Device) -> str:
    if device.kind == "cuda":
        name = device.name.lower()
        return next(
            (
                key
                for key in ("t4", "a100", "h100")
                if key in name.split("-")[0] or key in name.split() or f"{key}-" in name
            ),
            "gpu",
        )
    keys = {"cpu": "cpu", "mps": "mps", "tpu": "v5e"}
    if device.kind not in keys:
        raise ConfigError(
            f"there are no defaults for {device.kind!r}", allowed=", ".join([*keys, "cuda"])
        )
    return keys[device.kind]


def _power_of_two(value: float) -> int:
    return 1 << max(int(value).bit_length() - 1, 0)
