"""The finished plan of a fit or evaluation: every setting decided once, before the first batch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from renshu import optim
from renshu.callbacks.callback import Callback
from renshu.data import DataModule
from renshu.feed import Feed
from renshu.intervals import Interval, Progress
from renshu.module import Module
from renshu.optim import SchedulerConfig
from renshu.precision import Precision
from renshu.results import Results
from renshu.strategies import SingleDevice

if TYPE_CHECKING:
    from renshu.trainer import Trainer

Hook = Callable[..., Any]


@dataclass
class Window:
    """Micro-batches whose gradients are summed up since the last optimiser step."""

    batches: int = 0
    first: Any = 0
    items: Any = 0


@dataclass(frozen=True)
class Event:
    """Something done whenever an interval is due."""

    name: str
    interval: Any
    run: Callable[[], None]


@dataclass(frozen=True)
class EpochBatches:
    """Due after every `size` batches inside each `every`-th epoch (Lightning's val_check_interval).

    Its count is the number of batches when due and 0 otherwise, so it only grows when due.
    """

    size: int
    every: int

    def count(self, progress: Progress) -> int:
        active = (progress.epoch + 1) % self.every == 0
        due = active and progress.batch > 0 and progress.batch % self.size == 0
        return progress.batches if due else 0

    def batches_until(self, progress: Progress) -> float:
        return self.size - progress.batch % self.size


@dataclass(eq=False)
class Plan:
    """What the loops work with. Built by the Trainer; the loops decide nothing that is in here.

    Attributes:
        hooks: hook name → those who override it, bound, in the order of their calls.
        transfers: what is done to a batch before a step: user hooks, moving, casting.
        accumulate: micro-batches an optimiser step.
        watched: losses and gradient norms since the last look, with the step they belong to.
        marks: event name → how often it was due and done.
        wake: total of batches at which the next event may be due.
        halt: a stop was asked for, by `should_stop` or by a signal.
    """

    trainer: Trainer
    module: Module
    datamodule: DataModule | None
    callbacks: list[Callback]
    strategy: SingleDevice
    precision: Precision
    hooks: dict[str, list[Hook]]
    transfers: list[Hook]
    results: Results
    progress: Progress = field(default_factory=Progress)

    feed: Feed | None = None
    val_feeds: list[Feed] = field(default_factory=list)
    sanity_batches: int = 0

    optimizers: list[Optimizer] = field(default_factory=list)
    schedulers: list[SchedulerConfig] = field(default_factory=list)
    automatic: bool = True
    closure: bool = False
    takes_index: bool = True
    accumulate: int = 1
    clip_value: float | None = None
    clip_algorithm: str = "norm"
    clip_by_module: bool = False
    plain_gradients: list[Tensor] | None = None
    own_backward: bool = False
    forward: Any = None
    window: Window = field(default_factory=Window)
    stepped: bool = False

    events: list[Event] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    wake: float = 0
    max_epochs: int | None = None
    min_epochs: int = 0
    max_steps: int | None = None
    min_steps: int = 0
    stop_after: Interval | None = None
    max_seconds: float | None = None
    started: float = field(default_factory=time.monotonic)

    check_finite: bool = True
    watched: list[tuple[int, str, Tensor]] = field(default_factory=list)
    loss: Tensor | None = None
    halt: bool = False
    signal: int | None = None
    resumed: bool = False

    def call(self, name: str, *arguments: Any) -> None:
        """Call everybody who listens to a hook."""
        for hook in self.hooks[name]:
            hook(*arguments)

    def prepare(self, optimizer: Optimizer) -> None:
        """Between backward and an optimiser's step: unscale, hooks, clipping."""
        if self.precision.scaler is not None:
            self.precision.scaler.unscale_(optimizer)
        for hook in self.hooks["on_before_optimizer_step"]:
            hook(optimizer)
        if not self.automatic:
            return
        if self.clip_by_module:
            self.module.configure_gradient_clipping(optimizer, self.clip_value, self.clip_algorithm)
        elif self.clip_value:
            norm = optim.clip(optimizer, self.clip_value, self.clip_algorithm)
            if norm is not None and self.precision.scaler is None:
                self.watched.append((self.progress.step, "gradient norm", norm.detach()))

    def clock(self) -> None:
        """Bring the progress's seconds up to date."""
        self.progress.seconds = time.monotonic() - self.started


_RETURNING = ("on_train_batch_start",)
STEP_HOOKS = (
    "on_train_batch_start",
    "on_train_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
)
_STAGES = ("train", "validation", "test", "predict")
HOOKS = (
    "on_fit_start",
    "on_fit_end",
    "on_sanity_check_start",
    "on_sanity_check_end",
    *STEP_HOOKS[2:],
    *(f"on_{s}_{e}" for s in _STAGES for e in ("start", "end", "epoch_start", "epoch_end")),
    *(f"on_{s}_{e}" for s in _STAGES for e in ("batch_start", "batch_end")),
)


def listeners(trainer: Trainer, module: Module, callbacks: list[Callback]) -> dict[str, list[Hook]]:
    """For each hook the bound methods that override it: callbacks in order, then the module.

    Callbacks that watch a value come last at the end of a training epoch: by then all is logged.
    """
    found: dict[str, list[Hook]] = {}
    for name in HOOKS:
        late = name == "on_train_epoch_end"
        first = [c for c in callbacks if not (late and hasattr(c, "monitor"))]
        last = [c for c in callbacks if late and hasattr(c, "monitor")]
        hooks: list[Hook] = [
            partial(getattr(c, name), trainer, module)
            for c in first
            if overrides(c, name, Callback)
        ]
        if overrides(module, name, Module):
            hooks.append(getattr(module, name))
        hooks += [
            partial(getattr(c, name), trainer, module) for c in last if overrides(c, name, Callback)
        ]
        found[name] = hooks
    return found


def overrides(item: object, name: str, base: type) -> bool:
    """Whether an object has a method of its own in place of the base class's."""
    method = getattr(item, name, None)
    return method is not None and getattr(method, "__func__", method) is not getattr(
        base, name, None
    )
