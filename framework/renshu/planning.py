"""From options to a Plan: limits, loaders, optimisers, transfers. Refuses what cannot work."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.optim import LBFGS, Optimizer

from renshu.callbacks.callback import Callback
from renshu.data import DataModule, cast, move
from renshu.errors import ConfigError
from renshu.feed import Feed, make_feed
from renshu.intervals import Interval
from renshu.module import Module
from renshu.optim import OptimizerHandle, parameters, read_optimizers
from renshu.options import TrainerOptions
from renshu.plan import EpochBatches, Plan, overrides

if TYPE_CHECKING:
    from renshu.trainer import Trainer

_LOADERS = {
    "fit": "train_dataloader",
    "validation": "val_dataloader",
    "test": "test_dataloader",
    "predict": "predict_dataloader",
}


def check_options(options: TrainerOptions) -> None:
    """Contradictions among the options, found when the Trainer is made."""
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches",
                 "limit_predict_batches", "overfit_batches"):  # fmt: skip
        value = getattr(options, name)
        share_is_wrong = isinstance(value, float) and not 0 <= value <= 1
        if value is not None and (value < 0 or share_is_wrong):
            raise ConfigError(
                f"{name}={value}", allowed="a number of batches (int) or a share 0.0 to 1.0 (float)"
            )
    if options.accumulate_grad_batches < 1:
        raise ConfigError(
            f"accumulate_grad_batches={options.accumulate_grad_batches}", allowed="1, 2, 3 …"
        )
    if options.gradient_clip_algorithm not in (None, "norm", "value"):
        raise ConfigError(
            f"gradient_clip_algorithm={options.gradient_clip_algorithm!r}", allowed="norm, value"
        )
    if options.on_nonfinite not in ("stop", "ignore"):
        raise ConfigError(f"on_nonfinite={options.on_nonfinite!r}", allowed="stop, ignore")
    for name in ("validate_every", "log_every", "stop_after"):
        if (value := getattr(options, name)) is not None:
            Interval.parse(value, name)
    if options.validate_every and options.val_check_interval is not None:
        raise ConfigError("validate_every and val_check_interval are both given", allowed="one")
    if options.log_every and options.log_every_n_steps is not None:
        raise ConfigError("log_every and log_every_n_steps are both given", allowed="one")
    if options.max_time is not None:
        seconds(options.max_time)


def seconds(text: str) -> float:
    """ "DD:HH:MM:SS" → seconds."""
    try:
        days, hours, minutes, rest = (int(part) for part in text.split(":"))
    except ValueError:
        raise ConfigError(
            f"max_time={text!r}", allowed='"DD:HH:MM:SS", for example "00:08:00:00"'
        ) from None
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


# --- data


def loaders(module: Module, datamodule: DataModule | None, given: Any, stage: str) -> list[Any]:
    """The loaders of a stage: given ones, else the data module's, else the module's."""
    value, name = given, _LOADERS[stage]
    if value is None and datamodule is not None and overrides(datamodule, name, DataModule):
        value = getattr(datamodule, name)()
    if value is None and overrides(module, name, Module):
        value = getattr(module, name)()
    if value is None:
        return []
    # A list may be several loaders, or one list of ready batches.
    several = isinstance(value, (list, tuple)) and any(map(_is_loader, value[:8]))
    if stage == "fit" and several:
        raise ConfigError(
            "several training loaders at once are not built yet",
            where=name,
            allowed="one loader; several for validation, test and prediction",
        )
    return list(value) if several else [value]


def _is_loader(item: Any) -> bool:
    from torch.utils.data import DataLoader

    return isinstance(item, DataLoader)


def feed(trainer: Trainer, loader: Any, name: str, limit: int | float | None) -> Feed:
    """The resumable feed of a loader, with its limit as a number of batches."""
    strategy = trainer.strategy
    made = make_feed(loader, trainer.seed, name, rank=strategy.rank, world=strategy.world)
    if isinstance(limit, float):
        length = made.length
        if length is None:
            if limit == 1.0:
                return made
            raise ConfigError(
                f"a share of batches ({limit}) of a loader of unknown length",
                where=name,
                allowed="a number of batches",
            )
        limit = int(length * limit)
    made.limit = limit
    return made


def stage_limit(options: TrainerOptions, stage: str) -> int | float | None:
    """The limit on batches that holds for a stage."""
    if options.fast_dev_run:
        return int(options.fast_dev_run)
    if options.overfit_batches and stage in ("fit", "validation"):
        return options.overfit_batches
    return {
        "fit": options.limit_train_batches,
        "validation": options.limit_val_batches,
        "test": options.limit_test_batches,
        "predict": options.limit_predict_batches,
    }[stage]


def transfers(plan: Plan) -> list[Callable[..., Any]]:
    """What is done to each batch before its step; nothing at all in the common case on the CPU."""
    found: list[Callable[..., Any]] = []

    def user(name: str) -> Callable[..., Any] | None:
        for owner, base in ((plan.datamodule, DataModule), (plan.module, Module)):
            if owner is not None and overrides(owner, name, base):
                return getattr(owner, name)
        return None

    device, precision = plan.strategy.device, plan.precision
    if (before := user("on_before_batch_transfer")) is not None:
        found.append(before)
    if (own := user("transfer_batch_to_device")) is not None:
        found.append(lambda batch, number: own(batch, device, number))
    elif device.type != "cpu":
        found.append(lambda batch, _: move(batch, device))
    if precision.casts:
        found.append(lambda batch, _: cast(batch, precision.dtype))
    if (after := user("on_after_batch_transfer")) is not None:
        found.append(after)
    return found


# --- the fit


def plan_limits(plan: Plan, options: TrainerOptions) -> None:
    """When training ends."""
    plan.max_epochs = options.max_epochs
    plan.max_steps = None if options.max_steps == -1 else options.max_steps
    if options.stop_after is not None:
        plan.stop_after = Interval.parse(options.stop_after, "stop_after")
    plan.max_seconds = None if options.max_time is None else seconds(options.max_time)
    if options.fast_dev_run:
        plan.max_epochs, plan.max_steps = 1, int(options.fast_dev_run)
    unlimited = plan.max_steps is None and plan.stop_after is None and plan.max_seconds is None
    if plan.max_epochs is None and unlimited:
        plan.max_epochs = 1000
    if plan.max_epochs == -1:
        plan.max_epochs = None
    plan.min_epochs = options.min_epochs or 0
    plan.min_steps = options.min_steps or 0
    plan.check_finite = options.on_nonfinite == "stop"


def plan_optimisation(plan: Plan, options: TrainerOptions) -> None:
    """Optimisers, schedulers, and which of the ways through a step this fit takes."""
    module, trainer = plan.module, plan.trainer
    where = f"{type(module).__name__}.configure_optimizers"
    found = read_optimizers(module.configure_optimizers(), where)
    plan.optimizers, plan.schedulers = found.optimizers, found.schedulers
    plan.automatic = module.automatic_optimization
    _check_optimizers(plan, where)
    own_step = overrides(module, "optimizer_step", Module)
    needs_closure = any(isinstance(optimizer, LBFGS) for optimizer in plan.optimizers)
    plan.closure = plan.automatic and (own_step or needs_closure)
    if plan.closure and len(plan.optimizers) != 1:
        raise ConfigError(
            f"{len(plan.optimizers)} optimisers with their own optimizer_step or LBFGS",
            where=where,
            allowed="one optimiser there; several step together without an own optimizer_step",
            mend="automatic_optimization = False",
        )
    if needs_closure and plan.precision.scaler is not None:
        raise ConfigError("LBFGS cannot work with 16-mixed", allowed="32-true, bf16-mixed, 64-true")
    _plan_gradients(plan, options)
    trainer.optimizer_handles = [OptimizerHandle(o, plan) for o in plan.optimizers]
    for optimizer in plan.optimizers:
        if plan.precision.scaler is not None:
            plan.precision.watch(optimizer)
        if plan.closure or not plan.automatic:
            optimizer.register_step_post_hook(_note_step(plan))
    count = positional(module.training_step)
    plan.takes_index = count > 1
    _check_signature(module, count)


def _plan_gradients(plan: Plan, options: TrainerOptions) -> None:
    module = plan.module
    plan.accumulate = options.accumulate_grad_batches
    plan.clip_value = options.gradient_clip_val
    plan.clip_algorithm = options.gradient_clip_algorithm or "norm"
    plan.clip_by_module = overrides(module, "configure_gradient_clipping", Module)
    plan.own_backward = overrides(module, "backward", Module)
    if not plan.automatic and (plan.accumulate > 1 or plan.clip_value):
        raise ConfigError(
            "accumulate_grad_batches and gradient_clip_val do nothing in manual optimisation",
            where=type(module).__name__,
            mend="do both in training_step: self.clip_gradients(optimizer, …)",
        )
    plain = all(type(o).zero_grad is Optimizer.zero_grad for o in plan.optimizers)
    listened = plan.hooks["on_before_zero_grad"]
    if plain and not listened and not overrides(module, "optimizer_zero_grad", Module):
        plan.plain_gradients = [p for o in plan.optimizers for p in parameters(o)]
    if plan.precision.autocasts or plan.precision.casts:
        plan.forward = plan.precision.forward()


def _note_step(plan: Plan) -> Callable[..., None]:
    def stepped(*_: Any) -> None:
        plan.stepped = True

    return stepped


def _check_optimizers(plan: Plan, where: str) -> None:
    if not plan.optimizers and plan.automatic:
        raise ConfigError(
            "configure_optimizers returned no optimiser",
            where=where,
            mend="return torch.optim.Adam(self.parameters(), lr=1e-3)",
        )
    owners: dict[int, int] = {}
    for number, optimizer in enumerate(plan.optimizers):
        for parameter in parameters(optimizer):
            if plan.automatic and owners.setdefault(id(parameter), number) != number:
                raise ConfigError(
                    "two optimisers share a parameter; together they would update it twice",
                    where=where,
                    allowed="disjoint parameters, or automatic_optimization = False",
                )


def _check_signature(module: nn.Module, count: int) -> None:
    if count < 1:
        raise ConfigError(
            "training_step takes no batch",
            where=type(module).__name__,
            allowed="training_step(self, batch) or training_step(self, batch, batch_idx)",
        )


def positional(function: Callable[..., Any]) -> int:
    """How many positional arguments a bound method takes; 3 when it takes any number."""
    found = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in found):
        return 3
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in found)


def validation_interval(plan: Plan, options: TrainerOptions) -> Any:
    """When validation runs, or None if it never does."""
    lengths = [feed.length for feed in plan.val_feeds]
    if not plan.val_feeds or all(length == 0 for length in lengths):
        return None
    if options.validate_every is not None:
        return Interval.parse(options.validate_every, "validate_every")
    every, share = options.check_val_every_n_epoch, options.val_check_interval
    if share is None or (isinstance(share, float) and share == 1.0):
        return Interval(every or 1, "epochs")
    assert plan.feed is not None
    length = plan.feed.length
    if isinstance(share, float):
        if length is None:
            raise ConfigError(
                f"val_check_interval={share} of an epoch of unknown length",
                allowed="a number of batches, or validate_every",
            )
        share = max(1, int(length * share))
    if every is None:
        return Interval(share, "batches")
    if length is not None and share > length:
        raise ConfigError(
            f"val_check_interval={share} is more than the {length} batches of an epoch",
            mend=f'validate_every="{share} batches" counts across epochs',
        )
    return EpochBatches(share, every)


def log_interval(options: TrainerOptions) -> Interval:
    """When values of a step go to the loggers, and NaN is looked for."""
    if options.log_every is not None:
        return Interval.parse(options.log_every, "log_every")
    return Interval(options.log_every_n_steps or 50, "steps")


def sanity_batches(plan: Plan, options: TrainerOptions) -> int:
    """How many validation batches are tried before training."""
    wanted = options.num_sanity_val_steps
    wanted = 2 if wanted is None else wanted
    if options.fast_dev_run or options.barebones or options.overfit_batches or not plan.val_feeds:
        return 0
    return 2**62 if wanted == -1 else wanted


def estimated_steps(plan: Plan) -> int | float:
    """Optimiser steps of the whole fit, as far as the limits tell."""
    assert plan.feed is not None
    if plan.max_steps is not None:
        steps: float = plan.max_steps
    else:
        steps = math.inf
    if plan.max_epochs is not None and plan.feed.length is not None:
        accumulate = plan.trainer.options.accumulate_grad_batches
        steps = min(steps, math.ceil(plan.feed.length / accumulate) * plan.max_epochs)
    return int(steps) if math.isfinite(steps) else steps


def callback_events(plan: Plan) -> list[tuple[str, Interval, Callable[[], None]]]:
    """Callbacks with an interval of their own."""
    return [
        (f"{number}: {callback.state_key}", callback.interval,
         partial(callback.on_interval, plan.trainer, plan.module))
        for number, callback in enumerate(plan.callbacks)
        if callback.interval is not None and overrides(callback, "on_interval", Callback)
    ]  # fmt: skip
