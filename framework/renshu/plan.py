"""The finished plan of a fit or evaluation: every setting decided once, before the first batch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.optim import Optimizer

from renshu import optim
from renshu.callbacks.callback import Callback
from renshu.data import DataModule, cast, move
from renshu.errors import ConfigError
from renshu.feed import Feed
from renshu.intervals import Interval, Progress
from renshu.module import Module
from renshu.optim import OptimizerConfig, SchedulerConfig
from renshu.results import Results

if TYPE_CHECKING:
    from renshu.trainer import Trainer

Hook = Callable[..., Any]

VERBS = {"train": "fit", "validation": "validate", "test": "test", "predict": "predict"}
"""Stage → the Trainer's method for it, which is also what `setup` and `teardown` are told."""

HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


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
    run: Callable[[], object]


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
        stage: train, validation, test or predict.
        hooks: hook name → those who override it, bound, in the order of their calls.
        transfers: what is done to a batch before a step: user hooks, moving, casting.
        forward: context of every step, or None.
        feed: training batches; None in an evaluation.
        val_feeds: the batches of an evaluation, one feed a loader.
        given: stage → the loaders that the user gave directly, if any.
        every_step: every optimiser steps in every step.
        closure: the optimiser is given a closure: LBFGS, or an own `optimizer_step`.
        step: what runs `training_step`; of several processes, so that gradients are averaged.
        takes: how many arguments `training_step` takes.
        skips: a step whose gradients are not finite is left out.
        weighs: losses are weighted by their share of the step's samples.
        accumulate: micro-batches an optimiser step.
        plain_gradients: gradients are simply set to None; no hook has to run.
        limits: training ends when any of these is due.
        watched: losses and gradient norms since the last look, with the step they belong to.
        marks: event name → how often it was due and done.
        wake: total of batches at which the next event may be due.
        validated: total of batches at the last validation.
        halt: a stop was asked for, by `should_stop` or by a signal.
        signal: the signal that ends the run; of several processes, when all have heard of it.
        asked: a signal that came to this process.
    """

    trainer: Trainer
    module: Module
    datamodule: DataModule | None
    callbacks: list[Callback]
    stage: str
    progress: Progress = field(default_factory=Progress)

    feed: Any = None
    val_feeds: list[Feed] = field(default_factory=list)
    given: dict[str, Any] = field(default_factory=dict)
    sanity_batches: int = 0

    configs: list[OptimizerConfig] = field(default_factory=list)
    optimizers: list[Optimizer] = field(default_factory=list)
    every_step: bool = True
    schedulers: list[SchedulerConfig] = field(default_factory=list)
    handles: list[Any] = field(default_factory=list)
    automatic: bool = True
    closure: bool = False
    step: Any = None
    takes: int = 2
    skips: bool = False
    weighs: bool = False
    accumulate: int = 1
    clip_by_module: bool = False
    plain_gradients: bool = False
    own_backward: bool = False
    window: Window = field(default_factory=Window)
    stepped: bool = False

    events: list[Event] = field(default_factory=list)
    marks: dict[str, int] = field(default_factory=dict)
    wake: float = 0
    validated: int = -1
    max_epochs: int | None = None
    max_steps: int | None = None
    limits: list[Interval] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    watched: list[tuple[int, str, Tensor]] = field(default_factory=list)
    loss: Tensor | None = None
    halt: bool = False
    signal: int | None = None
    asked: int | None = None
    resumed: bool = False
    random: Any = None

    def __post_init__(self) -> None:
        trainer = self.trainer
        self.options, self.strategy = trainer.options, trainer.strategy
        self.alone = self.strategy.world == 1
        self.precision = trainer.precision
        self.forward = self.precision.forward()
        self.results = Results("train", self.strategy.device)
        self.hooks = {name: self._listeners(name) for name in HOOKS}
        self.transfers = self._transfers()

    def _listeners(self, name: str) -> list[Hook]:
        """The bound methods that override a hook: callbacks in order, then the module.

        Callbacks that watch a value come last at the end of a training epoch: by then all is
        logged.
        """
        late = name == "on_train_epoch_end"
        first, last = list[Hook](), list[Hook]()
        for callback in self.callbacks:
            if overrides(callback, name, Callback):
                _check_arguments(callback, name, Callback)
                hook = partial(getattr(callback, name), self.trainer, self.module)
                (last if late and hasattr(callback, "monitor") else first).append(hook)
        if not overrides(self.module, name, Module):
            return [*first, *last]
        _check_arguments(self.module, name, Module)
        return [*first, getattr(self.module, name), *last]

    def _transfers(self) -> list[Hook]:
        """What is done to each batch before its step; nothing in the common case on the CPU."""
        owners = ((self.datamodule, DataModule), (self.module, Module))

        def own(name: str) -> list[Hook]:
            return [getattr(o, name) for o, base in owners if overrides(o, name, base)][:1]

        device, dtype = self.strategy.device, self.precision.dtype
        found = own("on_before_batch_transfer")
        if transfer := own("transfer_batch_to_device"):
            found.append(lambda batch, number: transfer[0](batch, device, number))
        elif device.type != "cpu":
            found.append(lambda batch, _: move(batch, device))
        if self.precision.casts:
            found.append(lambda batch, _: cast(batch, dtype))
        return found + own("on_after_batch_transfer")

    @property
    def feeds(self) -> list[Feed]:
        """All loaders of the stage, those of its validations too."""
        return [feed for feed in (self.feed, *self.val_feeds) if feed is not None]

    def choose_step(self) -> None:
        """What runs training_step; anew after parameters were frozen or unfrozen."""
        self.step = self.module.training_step
        if self.automatic:  # by hand, `manual_backward` averages the gradients
            self.step = self.strategy.step(self.module, self.step)

    def accumulate_over(self, batches: int) -> None:
        """Step every so many batches."""
        self.accumulate, self.weighs = batches, batches > 1 or not self.alone

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
        limit, algorithm = self.options.gradient_clip_val, self.options.gradient_clip_algorithm
        for config in self.configs:
            if config.optimizer is optimizer and config.gradient_clip_val is not None:
                limit, algorithm = config.gradient_clip_val, config.gradient_clip_algorithm
        algorithm = algorithm or "norm"
        if self.automatic and self.clip_by_module:
            self.module.configure_gradient_clipping(optimizer, limit, algorithm)
        elif self.automatic and limit:
            norm = optim.clip(optimizer, limit, algorithm)
            if norm is not None and self.precision.scaler is None:
                self.watched.append((self.progress.step, "gradient norm", norm.detach()))

    def note_step(self, *_: Any) -> None:
        """A hook of optimisers that step by themselves."""
        self.stepped = True

    def clock(self) -> None:
        """Bring the progress's seconds up to date; of several processes `agree` does."""
        if self.alone:
            self.progress.seconds = time.monotonic() - self.started

    def agree(self) -> None:
        """All processes: the first one's clock, a stop that any asks for, a signal that any got."""
        if not self.alone:
            seconds = time.monotonic() - self.started
            heard = self.strategy.gather((seconds, self.halt, self.asked), "the end of its events")
            self.progress.seconds = heard[0][0]
            self.signal = next((number for _, _, number in heard if number), None)
            self.halt = any(halt for _, halt, _ in heard) or self.signal is not None


def _check_arguments(owner: object, name: str, base: type) -> None:
    """Raise ConfigError for a hook that does not take what it will be called with."""
    given = [*inspect.signature(getattr(base, name)).parameters.values()][1:]
    needed = [argument for argument in given if argument.default is argument.empty]
    found = inspect.signature(getattr(owner, name))
    for arguments in (given, needed):
        with suppress(TypeError):
            found.bind(*arguments)
            return
    allowed = f"{name}({', '.join(['self', *(argument.name for argument in given)])})"
    said = f"{type(owner).__name__}.{name}{found} does not take the hook's arguments"
    raise ConfigError(said, allowed=allowed)


def overrides(item: object, name: str, base: type) -> bool:
    """Whether an object has a method of its own in place of the base class's."""
    method = getattr(item, name, None)
    inherited = getattr(base, name, None)
    return method is not None and getattr(method, "__func__", method) is not inherited
