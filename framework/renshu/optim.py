"""Optimisers and schedulers: reading configure_optimizers, clipping, and steps called by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from renshu.data import as_list
from renshu.errors import ConfigError, unknown
from renshu.intervals import Interval

if TYPE_CHECKING:
    from renshu.plan import Plan

_OPTIMIZER_KEYS = (
    *("optimizer", "lr_scheduler", "monitor", "name", "frequency"),
    *("gradient_clip_val", "gradient_clip_algorithm"),
)


@dataclass
class OptimizerConfig:
    """An optimiser, and how it is stepped in automatic optimisation.

    With a `name` training_step may return `{"losses": {name: loss}}`: each optimiser's parameters
    get the gradients of its own loss. It steps at every `frequency`-th of the fit's steps, and
    clips by its own limit where one is given.
    """

    optimizer: Optimizer
    name: str | None = None
    frequency: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str | None = None

    def is_due(self, step: int) -> bool:
        """Whether it steps in the step under way, counted from 0."""
        return (step + 1) % self.frequency == 0


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


def read_optimizers(value: Any, where: str) -> tuple[list[OptimizerConfig], list[SchedulerConfig]]:
    """Lightning's six forms of configure_optimizers' result.

    None; one optimiser; a list of them; a dict with "optimizer", perhaps "lr_scheduler" and what
    `OptimizerConfig` has; a list of such dicts; a pair (optimisers, schedulers). A scheduler is one
    itself or a dict with the keys scheduler, interval, frequency, monitor, strict, name, every.

    Raises:
        ConfigError: anything else, with the key or value that is wrong.
    """
    schedulers, configs = list[Any](), list[OptimizerConfig]()
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], (list, tuple)):
        optimizers, schedulers = list(value[0]), as_list(value[1])
    else:
        optimizers = as_list(value)
        for number, item in enumerate(optimizers):
            if isinstance(item, Mapping):
                _check_keys(item, _OPTIMIZER_KEYS, "optimizer", where)
                own = {k: v for k, v in item.items() if k not in ("lr_scheduler", "monitor")}
                optimizers[number] = OptimizerConfig(**own)
                if (scheduler := item.get("lr_scheduler")) is not None:
                    # What it watches may be said beside it.
                    schedulers.append({"monitor": item.get("monitor"), **_as_dict(scheduler)})
    for item in optimizers:
        config = item if isinstance(item, OptimizerConfig) else OptimizerConfig(item)
        if not isinstance(config.optimizer, Optimizer):
            said = f"configure_optimizers gave a {type(config.optimizer).__name__}"
            forms = "optimisers, dicts with 'optimizer', or (optimisers, schedulers)"
            raise ConfigError(said, where=where, allowed=forms)
        if not isinstance(config.frequency, int) or config.frequency < 1:
            said = f"optimiser frequency {config.frequency!r}"
            raise ConfigError(said, where=where, allowed="1, 2, 3 …")
        configs.append(config)
    names = [config.name for config in configs if config.name is not None]
    if len(names) > len(set(names)):
        raise ConfigError(f"two optimisers have one name: {', '.join(names)}", where=where)
    return configs, [_scheduler(scheduler, where) for scheduler in schedulers]


def _as_dict(scheduler: Any) -> Mapping[str, Any]:
    return scheduler if isinstance(scheduler, Mapping) else {"scheduler": scheduler}


def _check_keys(item: Mapping[str, Any], known: Iterable[str], needed: str, where: str) -> None:
    for key in item:
        if key not in known:
            raise unknown("key", key, known, where=where)
    if needed not in item:
        raise ConfigError(f"the key {needed!r} is missing", where=where, allowed=", ".join(known))


def _scheduler(value: Any, where: str) -> SchedulerConfig:
    given = _as_dict(value)
    _check_keys(given, SchedulerConfig.__dataclass_fields__, "scheduler", where)
    config = SchedulerConfig(**given)
    config.reduce_on_plateau |= isinstance(config.scheduler, ReduceLROnPlateau)
    if not hasattr(config.scheduler, "step"):
        raise ConfigError(f"{type(config.scheduler).__name__} is not a scheduler", where=where)
    if config.interval not in ("step", "epoch"):
        raise unknown("lr_scheduler interval", config.interval, ("step", "epoch"), where)
    if not isinstance(config.frequency, int) or config.frequency < 1:
        said = f"lr_scheduler frequency {config.frequency!r}"
        raise ConfigError(said, where=where, allowed="1, 2, 3 …")
    if config.every is not None:
        config.every = Interval.parse(config.every, f"{where}: lr_scheduler 'every'")
        if config.every.is_clock:
            said = f"a schedule cannot follow the clock ({config.every}): it would not repeat"
            raise ConfigError(said, where=where, allowed="steps, batches, samples, epochs")
    if config.reduce_on_plateau and config.monitor is None:
        mend = '{"scheduler": …, "monitor": "val_loss"}'
        raise ConfigError("ReduceLROnPlateau needs to know what to watch", where=where, mend=mend)
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
        plan, scaler = self._plan, self._plan.precision.scaler

        def prepared() -> Any:
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            plan.prepare(self.optimizer)
            return loss

        if scaler is None and closure is not None:
            return self.optimizer.step(closure=prepared, **kwargs)
        loss = prepared()
        if scaler is None:
            return self.optimizer.step(**kwargs)
        plan.precision.step(self.optimizer)
        scaler.update()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimizer, name)
