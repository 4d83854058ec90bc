"""Accelerators: which there are, and which one a run uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from renshu.errors import ConfigError, unknown

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps", "tpu")


def count(kind: str) -> int:
    """How many devices of a kind this machine has; for the CPU, how many processes may share it."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {"cpu": 1, "cuda": gpus, "mps": int(torch.backends.mps.is_available())}.get(kind, 0)


def resolve(
    accelerator: str, devices: int | str | list[int], several: bool = False
) -> list[torch.device]:
    """The devices that options ask for; with `several`, any number of processes shares the CPU.

    Raises:
        ConfigError: the accelerator is unknown or absent, or there are fewer devices. Nothing is
            replaced silently: a GPU that was asked for and is missing stops the run.
    """
    kind = _kind(accelerator)
    available = count(kind)
    if available == 0:
        raise ConfigError(
            f"accelerator={accelerator!r} was asked for and this machine has none",
            allowed=", ".join(k for k in ("cpu", "cuda", "mps") if count(k)),
            mend='accelerator="auto", or see `renshu doctor`',
        )
    wanted = _wanted(devices, available)
    if several and kind == "cpu":
        return [torch.device("cpu")] * len(wanted)
    if max(wanted) >= available or len(wanted) > available:
        some = (
            f"1 to {available}" if kind == "cuda" else '1 (strategy="ddp" starts several processes)'
        )
        said = f"devices={devices!r} cannot be had: {kind} has {available}"
        raise ConfigError(said, where="Trainer(devices=…)", allowed=some, mend='devices="auto"')
    return [torch.device(kind, i) if kind == "cuda" else torch.device(kind) for i in wanted]


@contextmanager
def algorithms(
    deterministic: bool | Literal["warn"] | None, benchmark: bool | None
) -> Iterator[None]:
    """torch's choice of algorithms for the length of a run; None leaves it as it is."""
    mode, cudnn = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    if deterministic is not None:
        torch.use_deterministic_algorithms(bool(deterministic), warn_only=deterministic == "warn")
    if benchmark is not None:
        torch.backends.cudnn.benchmark = benchmark
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = cudnn


def _kind(accelerator: str) -> str:
    if accelerator not in ACCELERATORS:
        raise unknown("accelerator", accelerator, ACCELERATORS)
    if accelerator == "tpu":
        raise ConfigError("training on TPU is not built yet", allowed="auto, cpu, gpu")
    if accelerator not in ("auto", "gpu"):
        return accelerator
    absent = "cpu" if accelerator == "auto" else "cuda"
    return next((kind for kind in ("cuda", "mps") if count(kind)), absent)


def _wanted(devices: int | str | list[int], available: int) -> list[int]:
    """Indices of the devices; "auto" is one until several processes are asked for."""
    if devices == "auto":
        return [0]
    if devices in (-1, "-1"):
        return list(range(available))
    if isinstance(devices, str) and re.fullmatch(r"\d+(,\d+)*", devices):
        numbers = [int(number) for number in devices.split(",")]
        devices = numbers if len(numbers) > 1 else numbers[0]
    if isinstance(devices, int) and devices is not True and devices >= 1:
        return list(range(devices))
    if isinstance(devices, (list, tuple)) and devices:
        return list(devices)
    some = 'a number from 1, a list of indices, "auto", or -1 for all'
    raise ConfigError(f"devices={devices!r} makes no sense", allowed=some)
