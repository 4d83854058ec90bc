"""Speed of training and validation as logged values."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any

import torch

from renshu.callbacks.callback import Callback

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_RATES = {"batches": "batches", "samples": "samples", "lengths": "items", "flops": "flops"}


@dataclass(eq=False)
class ThroughputMonitor(Callback):
    """Sends speeds to the loggers at their interval and after each validation.

    Names are `train/…` and `validate/…` with time (s), batches, samples and lengths so far, and
    device/batches_per_sec, samples_per_sec, items_per_sec, flops_per_sec and mfu: of one process,
    over the newest batches. With several processes the same without `device/` for all together,
    taken to be equally fast. Validations do not count as time of training. The device is waited for
    only when values are read anyway, never in a step.

    A `flops_per_batch` of the module gives flops_per_sec.

    Args:
        batch_size_fn: batch → samples.
        length_fn: batch → items, such as tokens.
        window_size: over how many batches a speed is taken, at least.
        separator: between the parts of a name.
        available_flops: the device's peak; gives mfu, the share of it that is used.
    """

    batch_size_fn: Callable[[Any], int]
    length_fn: Callable[[Any], int] | None = None
    _: KW_ONLY
    window_size: int = 100
    separator: str = "/"
    available_flops: float | None = None

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        from renshu.planning import log_interval

        self._fitting = stage == "fit"
        self.interval = log_interval(trainer.options) if self._fitting else None
        self._device, self._world = trainer.strategy.device, trainer.strategy.world

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        self._train, self._paused = _Meter(self._now()), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._count(self._train, batch)

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        self._log(trainer, "train", self._train, self._now() - self._paused)

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        self._validate = _Meter(self._now())

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: Module,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._count(self._validate, batch)

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        if self._fitting and not trainer.sanity_checking:
            now = self._now()
            self._log(trainer, "validate", self._validate, now)
            self._paused += now - self._validate.start

    def _count(self, meter: _Meter, batch: Any) -> None:
        counts = meter.counts
        counts["batches"] += 1
        counts["samples"] += self.batch_size_fn(batch)
        if self.length_fn is not None:
            counts["lengths"] += self.length_fn(batch)

    def _log(self, trainer: Trainer, stage: str, meter: _Meter, now: float) -> None:
        device = f"device{self.separator}"
        flops = getattr(trainer.lightning_module, "flops_per_batch", 0)
        rates = meter.read(now, flops, self.window_size)
        values = {f"{device}{unit}_per_sec": rate for unit, rate in rates.items()}
        if self.available_flops and f"{device}flops_per_sec" in values:
            values[f"{device}mfu"] = values[f"{device}flops_per_sec"] / self.available_flops
        if self._world > 1:
            values |= {k.removeprefix(device): v * self._world for k, v in values.items()}
            values.pop("mfu", None)
        values |= {k: v for k, v in meter.counts.items() if v and k != "flops"}
        values["time"] = now - meter.start
        trainer.log_metrics({f"{stage}{self.separator}{k}": v for k, v in values.items()})


class _Meter:
    """Counts, and what they were at the newest readings."""

    def __init__(self, now: float) -> None:
        self.start, self.counts = now, dict.fromkeys(_RATES, 0.0)
        self._readings = deque([(now, dict(self.counts))])

    def read(self, now: float, flops: float, window: int) -> dict[str, float]:
        """Units a second since the youngest reading that is at least `window` batches ago."""
        readings, counts = self._readings, self.counts
        counts["flops"] += (counts["batches"] - readings[-1][1]["batches"]) * flops
        readings.append((now, dict(counts)))
        while len(readings) > 2 and counts["batches"] - readings[1][1]["batches"] >= window:
            readings.popleft()
        then, before = readings[0]
        done = {unit: counts[name] - before[name] for name, unit in _RATES.items()}
        return {unit: count / max(now - then, 1e-9) for unit, count in done.items() if count}
