"""From options to a Plan: limits, loaders, optimisers, intervals. Refuses what cannot work."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from torch.optim import LBFGS, Optimizer

from renshu.combined import CombinedFeed, CombinedLoader, is_loader
from renshu.data import DataModule
from renshu.errors import ConfigError, unknown
from renshu.feed import Feed, make_feed
from renshu.intervals import Interval
from renshu.module import Module
from renshu.optim import OptimizerHandle, parameters, read_optimizers
from renshu.options import WHOLE_NUMBERS, TrainerOptions
from renshu.order import Share
from renshu.plan import VERBS, EpochBatches, Plan, overrides

CONTRADICTIONS = (
    ("validate_every", "val_check_interval"),
    ("log_every", "log_every_n_steps"),
    ("overfit_batches", "limit_train_batches", "limit_val_batches", "max_steps"),
    ("barebones", "logger", "profiler", "enable_checkpointing", "enable_progress_bar",
     "enable_model_summary"),
)  # fmt: skip
"""Options of which the first one goes with none of the others."""


def check_options(options: TrainerOptions) -> None:
    """What cannot work, found when the Trainer is made."""
    _check_contradictions(options)
    for name in ("limit_train_batches", "limit_val_batches", "limit_test_batches",
                 "limit_predict_batches", "overfit_batches"):  # fmt: skip
        value = getattr(options, name)
        if value is not None and not 0 <= value <= (1 if isinstance(value, float) else math.inf):
            allowed = "a number of batches (int) or a share 0.0 to 1.0 (float)"
            raise ConfigError(f"{name}={value}", allowed=allowed)
    for name, lowest in WHOLE_NUMBERS.items():
        value = getattr(options, name)
        if value is not None and (not isinstance(value, int) or value < lowest):
            raise ConfigError(f"{name}={value!r}", allowed=f"a whole number from {lowest}")
    share = options.val_check_interval
    if share is not None and not (share >= 1 if isinstance(share, int) else 0 < share <= 1):
        raise ConfigError(f"val_check_interval={share}", allowed="1, 2, 3 … or a share up to 1.0")
    if (limit := options.gradient_clip_val) is not None and limit < 0:
        raise ConfigError(f"gradient_clip_val={limit}", allowed="a number from 0")
    if options.deterministic not in (None, True, False, "warn"):
        raise unknown("deterministic", str(options.deterministic), ("True", "False", "warn"))
    if options.gradient_clip_algorithm not in (None, "norm", "value"):
        raise unknown("gradient_clip_algorithm", options.gradient_clip_algorithm, ("norm", "value"))
    if options.on_nonfinite not in (choices := ("stop", "ignore", "skip", "rollback")):
        raise unknown("on_nonfinite", options.on_nonfinite, choices)
    for name in ("validate_every", "log_every", "stop_after"):
        if (value := getattr(options, name)) is not None:
            Interval.parse(value, name)
    if options.max_time is not None:
        seconds(options.max_time)


def _check_contradictions(options: TrainerOptions) -> None:
    usual = vars(TrainerOptions())
    asked = {name for name, value in vars(options).items() if value and value != usual[name]}
    for one, *others in CONTRADICTIONS:
        if both := one in asked and asked.intersection(others):
            raise ConfigError(f"{one} and {min(both)} are both given", allowed="one of them")
    for unit in ("epochs", "steps"):
        least, most = getattr(options, f"min_{unit}"), getattr(options, f"max_{unit}")
        if least is not None and most not in (None, -1) and least > most:
            raise ConfigError(f"min_{unit}={least}", allowed=f"up to max_{unit}={most}")


def seconds(text: str) -> float:
    """ "DD:HH:MM:SS" → seconds."""
    try:
        days, hours, minutes, rest = map(int, text.split(":"))
    except ValueError:
        allowed = '"DD:HH:MM:SS", for example "00:08:00:00"'
        raise ConfigError(f"max_time={text!r}", allowed=allowed) from None
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


# --- data


def feeds(plan: Plan, given: Any, stage: str, needed: bool = True) -> list[Feed]:
    """A stage's resumable loaders: given ones, else the data module's, else the module's."""
    short = "val" if stage == "validation" else stage
    name = f"{short}_dataloader"
    value = None if isinstance(given, DataModule) else given
    plan.given.setdefault(stage, value)
    for owner, base in ((plan.datamodule, DataModule), (plan.module, Module)):
        if value is None and overrides(owner, name, base):
            value = getattr(owner, name)()
    if value is None:
        if needed:
            mend = f"trainer.{VERBS[stage]}(module, loader), or define {name}"
            raise ConfigError(f"there is no {stage} loader", mend=mend)
        return []
    if not is_loader(value):
        value = CombinedLoader(value, "max_size_cycle" if stage == "train" else "sequential")
    if stage == "train":
        return [_feed(plan, value, stage, short)]
    apart = isinstance(value, CombinedLoader) and value.mode == "sequential"
    loaders = value.flattened if apart else [value]
    return [_feed(plan, loader, stage, f"{short}/{i}") for i, loader in enumerate(loaders)]


def _feed(plan: Plan, loader: Any, stage: str, name: str) -> Feed:
    """The feed of one loader, or of several combined, with the limits of its stage."""
    options, strategy = plan.options, plan.strategy
    share = Share(apart=strategy.world)
    if options.use_distributed_sampler:
        share = Share(strategy.rank, strategy.world, strided=stage == "train")
    make = CombinedFeed if isinstance(loader, CombinedLoader) else make_feed
    feed: Any = make(loader, plan.trainer.seed, name, share=share)
    overfit = options.overfit_batches if stage in ("train", "validation") else 0
    limit = getattr(options, f"limit_{name.partition('/')[0]}_batches")
    limit = int(options.fast_dev_run) or overfit or limit
    feed.cut([_batches(part, limit, name) for part in feed.parts])
    for part in feed.parts if overfit and stage == "train" else ():
        if hasattr(part, "order"):
            part.order.shuffle = False
    return feed


def _batches(feed: Feed, limit: int | float | None, name: str) -> int | None:
    """A limit that may be a share of an epoch as a number of batches."""
    if not isinstance(limit, float):
        return limit
    if feed.length is None and limit < 1:
        said = f"a share of batches ({limit}) of a loader of unknown length"
        raise ConfigError(said, where=name, allowed="a number of batches")
    return None if feed.length is None else int(feed.length * limit)


# --- the fit


def plan_limits(plan: Plan) -> None:
    """When training ends, and how much of validation is tried before."""
    options = plan.options
    epochs, steps = options.max_epochs, None if options.max_steps == -1 else options.max_steps
    if options.fast_dev_run:
        epochs, steps = 1, int(options.fast_dev_run)
    if options.stop_after is not None:
        plan.limits.append(Interval.parse(options.stop_after, "stop_after"))
    if options.max_time is not None:
        plan.limits.append(Interval(seconds(options.max_time), "s"))
    if epochs is None and steps is None and not plan.limits:
        epochs = 1000
    plan.max_epochs, plan.max_steps = None if epochs == -1 else epochs, steps
    counts = ((plan.max_epochs, "epochs"), (plan.max_steps, "steps"))
    plan.limits += [Interval(count, unit) for count, unit in counts if count is not None]
    if not (options.fast_dev_run or options.barebones):
        wanted = options.num_sanity_val_steps
        plan.sanity_batches = 2 if wanted is None else 2**62 if wanted == -1 else wanted


def plan_optimisation(plan: Plan) -> None:
    """Optimisers, schedulers, and which of the ways through a step this fit takes."""
    module, scaler = plan.module, plan.precision.scaler
    where = f"{type(module).__name__}.configure_optimizers"
    try:
        made = module.configure_optimizers()
    except ValueError as error:  # torch's own: no parameters, a negative rate
        raise ConfigError(str(error), where=where) from error
    plan.configs, plan.schedulers = read_optimizers(made, where)
    plan.optimizers = [config.optimizer for config in plan.configs]
    plan.every_step = all(config.frequency == 1 for config in plan.configs)
    plan.handles = [OptimizerHandle(optimizer, plan) for optimizer in plan.optimizers]
    plan.automatic = module.automatic_optimization
    needs_closure = any(isinstance(optimizer, LBFGS) for optimizer in plan.optimizers)
    own_step = overrides(module, "optimizer_step", Module)
    plan.closure = plan.automatic and (own_step or needs_closure)
    if plan.automatic:
        _check_optimizers(plan, where)
    if needs_closure and scaler is not None:
        raise ConfigError("LBFGS cannot work with 16-mixed", allowed="32-true, bf16-mixed, 64-true")
    if needs_closure and plan.options.accumulate_grad_batches > 1:
        raise ConfigError("LBFGS evaluates a batch several times: it cannot accumulate batches")
    for optimizer in plan.optimizers:
        if scaler is not None:
            plan.precision.watch(optimizer)
        if plan.closure or not plan.automatic:
            optimizer.register_step_post_hook(plan.note_step)
    plan.choose_step()
    plan.takes = positional(module.training_step)
    if plan.takes < 1 or positional(module.training_step, needed=True) > 2:
        said = f"training_step{inspect.signature(module.training_step)} cannot be called"
        allowed = "training_step(self, batch) or training_step(self, batch, batch_idx)"
        raise ConfigError(said, where=type(module).__name__, allowed=allowed)
    _plan_gradients(plan)


def _plan_gradients(plan: Plan) -> None:
    module, options = plan.module, plan.options
    plan.accumulate_over(options.accumulate_grad_batches)
    if options.on_nonfinite == "skip" and (plan.closure or not plan.automatic):
        said = 'on_nonfinite="skip" needs automatic optimisation without closures'
        raise ConfigError(said, where=type(module).__name__, allowed="stop, rollback, ignore")
    # The scaler of 16-mixed leaves such steps out by itself.
    plan.skips = options.on_nonfinite == "skip" and plan.precision.scaler is None
    plan.clip_by_module = overrides(module, "configure_gradient_clipping", Module)
    plan.own_backward = overrides(module, "backward", Module)
    if not plan.automatic and (plan.accumulate > 1 or options.gradient_clip_val):
        said = "accumulate_grad_batches and gradient_clip_val do nothing in manual optimisation"
        mend = "do both in training_step: self.clip_gradients(optimizer, …)"
        raise ConfigError(said, where=type(module).__name__, mend=mend)
    plain = all(type(o).zero_grad is Optimizer.zero_grad for o in plan.optimizers)
    listened = plan.hooks["on_before_zero_grad"]
    own = overrides(module, "optimizer_zero_grad", Module)
    plan.plain_gradients = plain and not listened and not own


def _check_optimizers(plan: Plan, where: str) -> None:
    if not plan.optimizers:
        mend = "return torch.optim.Adam(self.parameters(), lr=1e-3)"
        raise ConfigError("configure_optimizers returned no optimiser", where=where, mend=mend)
    manual = "automatic_optimization = False"
    if plan.closure and len(plan.optimizers) > 1:
        said = f"{len(plan.optimizers)} optimisers with an own optimizer_step or LBFGS"
        raise ConfigError(said, where=where, allowed="one optimiser there", mend=manual)
    owned = [set(map(id, parameters(optimizer))) for optimizer in plan.optimizers]
    if len(set().union(*owned)) < sum(map(len, owned)):
        said = "two optimisers share a parameter; together they would update it twice"
        raise ConfigError(said, where=where, allowed=f"disjoint parameters, or {manual}")


def positional(function: Callable[..., Any], needed: bool = False) -> int:
    """How many positional arguments a bound method takes, or needs; 3 when it takes any number."""
    found = inspect.signature(function).parameters.values()
    if not needed and any(p.kind is p.VAR_POSITIONAL for p in found):
        return 3
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and not (needed and p.default is not p.empty) for p in found)


def estimated_steps(plan: Plan) -> int | float:
    """Optimiser steps of the whole fit, as far as the limits tell."""
    steps = math.inf if plan.max_steps is None else plan.max_steps
    if plan.max_epochs is not None and plan.feed.length is not None:
        length, windows = plan.feed.length, lambda _: plan.options.accumulate_grad_batches
        for callback in plan.callbacks:
            windows = getattr(callback, "get_accumulate_grad_batches", windows)
        epochs = range(plan.max_epochs)
        steps = min(steps, sum(math.ceil(length / windows(epoch)) for epoch in epochs))
    return steps


# --- intervals


def validation_interval(plan: Plan) -> Any:
    """When validation runs, or None if it never does."""
    options = plan.options
    every, share = options.check_val_every_n_epoch, options.val_check_interval
    if all(feed.length == 0 for feed in plan.val_feeds):
        return None
    if options.validate_every is not None:
        return Interval.parse(options.validate_every, "validate_every")
    if share is None or (isinstance(share, float) and share == 1.0):
        return Interval(every or 1, "epochs")
    length = plan.feed.length
    if isinstance(share, float):
        if length is None:
            said = f"val_check_interval={share} of an epoch of unknown length"
            raise ConfigError(said, allowed="a number of batches, or validate_every")
        share = max(1, int(length * share))
    if every is None:
        return Interval(share, "batches")
    if length is not None and share > length:
        said = f"val_check_interval={share} is more than the {length} batches of an epoch"
        raise ConfigError(said, mend=f'validate_every="{share} batches" counts across epochs')
    return EpochBatches(share, every)


def log_interval(options: TrainerOptions) -> Interval:
    """When values of a step go to the loggers, and NaN is looked for."""
    if options.log_every is not None:
        return Interval.parse(options.log_every, "log_every")
    return Interval(options.log_every_n_steps or 50, "steps")
