"""Optimisers and schedulers: reading configure_optimizers, clipping, and steps called by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from renshu.errors import ConfigError, near
from renshu.intervals import Interval

if TYPE_CHECKING:
    from renshu.plan import Plan

_SCHEDULER_KEYS = ("scheduler", "interval", "frequency", "monitor", "strict", "name", "every",
                   "reduce_on_plateau")  # fmt: skip
_OPTIMIZER_KEYS = ("optimizer", "lr_scheduler", "monitor", "frequency")


@dataclass
class SchedulerConfig:
    """A scheduler, and when and with what it is stepped. `every` replaces interval, frequency."""

    scheduler: Any
    interval: str = "epoch"
    frequency: int = 1
    monitor: str | None = None
    strict: bool = True
    name: str | None = None
    every: Interval | None = None
    reduce_on_plateau: bool = False

    def due_every(self) -> Interval:
        return self.every or Interval(self.frequency, f"{self.interval}s")


@dataclass
class Optimizers:
    """What configure_optimizers gave, read."""

    optimizers: list[Optimizer] = field(default_factory=list)
    schedulers: list[SchedulerConfig] = field(default_factory=list)


def read_optimizers(value: Any, where: str) -> Optimizers:
    """Lightning's six forms of configure_optimizers' result.

    None; one optimiser; a list of them; a dict with "optimizer" and perhaps "lr_scheduler"; a list
    of such dicts; a pair (optimisers, schedulers). A scheduler is one itself or a dict with the
    keys scheduler, interval, frequency, monitor, strict, name, every.

    Raises:
        ConfigError: anything else, with the key or value that is wrong.
    """
    found = Optimizers()
    if value is None:
        return found
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], (list, tuple)):
        found.optimizers = list(value[0])
        schedulers = value[1] if isinstance(value[1], (list, tuple)) else [value[1]]
        found.schedulers = [_scheduler(s, where) for s in schedulers]
    else:
        for item in value if isinstance(value, (list, tuple)) else [value]:
            _read_one(item, found, where)
    for optimizer in found.optimizers:
        if not isinstance(optimizer, Optimizer):
            raise ConfigError(
                f"configure_optimizers gave a {type(optimizer).__name__}",
                where=where,
                allowed="optimisers, dicts with 'optimizer', or (optimisers, schedulers)",
            )
    return found


def _read_one(item: Any, found: Optimizers, where: str) -> None:
    if not isinstance(item, Mapping):
        found.optimizers.append(item)
        return
    _check_keys(item, _OPTIMIZER_KEYS, "optimizer", where)
    found.optimizers.append(item["optimizer"])
    if item.get("lr_scheduler") is not None:
        config = _scheduler(item["lr_scheduler"], where)
        config.monitor = config.monitor or item.get("monitor")
        found.schedulers.append(config)


def _check_keys(item: Mapping[str, Any], known: tuple[str, ...], needed: str, where: str) -> None:
    unknown = [key for key in item if key not in known]
    if unknown or needed not in item:
        fault = f"unknown key {unknown[0]!r}" if unknown else f"the key {needed!r} is missing"
        raise ConfigError(
            f"configure_optimizers: {fault}",
            where=where,
            allowed=", ".join(known),
            mend=near(str(unknown[0]), known) if unknown else None,
        )


def _scheduler(value: Any, where: str) -> SchedulerConfig:
    if not isinstance(value, Mapping):
        return _checked(SchedulerConfig(value), where)
    _check_keys(value, _SCHEDULER_KEYS, "scheduler", where)
    config = SchedulerConfig(**value)
    if config.every is not None:
        config.every = Interval.parse(config.every, f"{where}: lr_scheduler 'every'")
        if config.every.is_clock:
            raise ConfigError(
                f"a schedule cannot follow the clock ({config.every}): it would not repeat",
                where=where,
                allowed="steps, batches, samples, epochs",
            )
    return _checked(config, where)


def _checked(config: SchedulerConfig, where: str) -> SchedulerConfig:
    config.reduce_on_plateau |= isinstance(config.scheduler, ReduceLROnPlateau)
    if not isinstance(config.scheduler, LRScheduler) and not hasattr(config.scheduler, "step"):
        raise ConfigError(f"{type(config.scheduler).__name__} is not a scheduler", where=where)
    if config.interval not in ("step", "epoch"):
        raise ConfigError(
            f"lr_scheduler interval {config.interval!r} is unknown",
            where=where,
            allowed="step, epoch",
            mend=near(str(config.interval), ("step", "epoch")),
        )
    if not isinstance(config.frequency, int) or config.frequency < 1:
        raise ConfigError(
            f"lr_scheduler frequency {config.frequency!r}", where=where, allowed="1, 2, 3 …"
        )
    if config.reduce_on_plateau and config.monitor is None:
        raise ConfigError(
            "ReduceLROnPlateau needs to know what to watch",
            where=where,
            mend='{"scheduler": …, "monitor": "val_loss"}',
        )
    return config


def parameters(optimizer: Optimizer) -> list[Tensor]:
    """All parameters of an optimiser."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def clip(optimizer: Optimizer, limit: float, algorithm: str) -> Tensor | None:
    """Clip one optimiser's gradients in place; by norm, it returns the norm before (0-dim)."""
    if algorithm == "value":
        nn.utils.clip_grad_value_(parameters(optimizer), limit)
        return None
    return nn.utils.clip_grad_norm_(parameters(optimizer), limit)


class OptimizerHandle:
    """An optimiser for manual optimisation: `step` runs the hooks and knows the scaler."""

    def __init__(self, optimizer: Optimizer, plan: Plan):
        self.optimizer = optimizer
        self._plan = plan

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """One update, with the closure that computes loss and gradients if one is given."""
        plan = self._plan

        def prepared() -> Any:
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            plan.prepare(self.optimizer)
            return loss

        if plan.precision.scaler is None:
            if closure is not None:
                return self.optimizer.step(closure=prepared, **kwargs)
            prepared()
            return self.optimizer.step(**kwargs)
        loss = prepared()
        plan.precision.step(self.optimizer)
        plan.precision.scaler.update()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)
