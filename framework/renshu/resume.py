"""The whole state of a fit: taken for a checkpoint, and put back so that it goes on bit-exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from renshu.checkpoints import restore
from renshu.errors import CheckpointError
from renshu.intervals import Progress
from renshu.messages import say
from renshu.optim import parameters
from renshu.plan import Plan, Window
from renshu.results import Entry, load_metric_states, metric_states
from renshu.runs import run_of
from renshu.seeds import derive, private_states, random_state, seed_globals, set_private_states
from renshu.weights import load_weights, read_state


def capture(plan: Plan, weights_only: bool = False) -> dict[str, Any]:
    """Everything that a resumed run needs; with `weights_only` what using the model needs.

    The keys that Lightning's checkpoints have as well carry Lightning's names, so that
    `on_save_checkpoint` hooks find them.
    """
    module, progress = plan.module, plan.progress
    plan.clock()
    state: dict[str, Any] = {
        "state_dict": module.state_dict(),
        "epoch": progress.epoch,
        "global_step": progress.step,
        "hyper_parameters": module.hyper_parameters_to_save(),
    }
    data = plan.datamodule
    if data is not None:
        state["datamodule_hyper_parameters"] = data.hyper_parameters_to_save()
    if not weights_only:
        state.update(
            optimizer_states=[restore.capture_optimizer(o) for o in plan.optimizers],
            lr_schedulers=[restore.capture_scheduler(c.scheduler) for c in plan.schedulers],
            scaler=plan.precision.state_dict(),
            progress=asdict(progress),
            marks=dict(plan.marks),
            window=vars(plan.window).copy(),
            gradients=_gradients(plan),
            feed={} if plan.feed is None else plan.feed.state_dict(),
            random=plan.strategy.gather(_generators(plan), "a checkpoint"),
            results=plan.strategy.gather(plan.results.state_dict(), "a checkpoint's values"),
            logged_metrics=_logged_metrics(plan),
            epoch_metrics=dict(plan.trainer.epoch_metrics),
            metrics=plan.strategy.gather(metric_states(module), "a checkpoint's metrics"),
            buffers=_unsaved_buffers(module),
            frozen=[name for name, p in module.named_parameters() if not p.requires_grad],
            eval=[name for name, part in module.named_modules() if not part.training],
            callbacks=_callback_states(plan),
            datamodule={} if data is None else data.state_dict(),
            seed=plan.trainer.seed,
        )
    for callback in plan.callbacks:
        callback.on_save_checkpoint(plan.trainer, module, state)
    module.on_save_checkpoint(state)
    return state


def restore_model(plan: Plan, state: dict[str, Any], where: str) -> None:
    """Weights, buffers, and the state of callbacks and data: before the optimisers are made."""
    plan.module.on_load_checkpoint(state)
    for callback in plan.callbacks:
        callback.on_load_checkpoint(plan.trainer, plan.module, state)
    # Before the weights: float64 ones must not pass through float32 parameters.
    plan.precision.convert_module(plan.module)
    load_weights(plan.module, state["state_dict"], where=where)
    if "progress" not in state:
        raise CheckpointError(
            "this checkpoint holds weights only: a run cannot be resumed from it",
            where=where,
            mend=f"{type(plan.module).__name__}.load_from_checkpoint(path) and a new fit",
        )
    for name, value in state["buffers"].items():
        plan.module.get_buffer(name).copy_(value)
    _restore_flags(plan.module, set(state["frozen"]), set(state["eval"]))
    for callback in plan.callbacks:
        if callback.state_key in state["callbacks"]:
            callback.load_state_dict(state["callbacks"][callback.state_key])
    if plan.datamodule is not None:
        plan.datamodule.load_state_dict(state["datamodule"])
    if (run := run_of(Path(where))) is not None:
        from renshu.report.environment import compare, describe, read_environment

        for line in compare(read_environment(run), describe()):
            say(f"the continued run will not be bit-equal: {line}")


def restore_training(plan: Plan, state: dict[str, Any], where: str) -> None:
    """Optimisers, schedulers, counters, half-summed gradients and generators: the rest."""
    for optimizer, saved in _pairs("optimisers", plan.optimizers, state["optimizer_states"], where):
        restore.restore_optimizer(optimizer, saved)
    for config, saved in _pairs("schedulers", plan.schedulers, state["lr_schedulers"], where):
        restore.restore_scheduler(config.scheduler, saved)
    plan.precision.load_state_dict(state["scaler"])
    plan.progress = Progress(**state["progress"])
    plan.started -= plan.progress.seconds
    plan.marks = dict(state["marks"])
    plan.window = Window(**state["window"])
    for parameter, gradient in zip(_trained(plan), state["gradients"], strict=False):
        parameter.grad = None if gradient is None else gradient.to(parameter.device)
    assert plan.feed is not None
    plan.feed.load_state_dict(state["feed"])
    _restore_results(plan, state)
    plan.trainer.epoch_metrics.update(state["epoch_metrics"])
    rank, states = plan.strategy.rank, state["random"]
    if len(states) != plan.strategy.world:
        said = f"saved by {len(states)} processes, continued by {plan.strategy.world}"
        say(f"{said}: what draws outside of the data, such as dropout, will not repeat")
        seed_globals(derive(plan.trainer.seed, "process", rank, plan.progress.step))
    random, private = states[rank] if len(states) == plan.strategy.world else (random_state(), [])
    for owner, saved in zip((plan.module, *plan.callbacks), private, strict=False):
        set_private_states(owner, saved)
    plan.resumed, plan.random = True, random


def _generators(plan: Plan) -> tuple[dict[str, Any], list[Any]]:
    """States of this process's generators: the global ones, and those of module and callbacks."""
    return random_state(), [private_states(owner) for owner in (plan.module, *plan.callbacks)]


def _restore_results(plan: Plan, state: dict[str, Any]) -> None:
    """The epoch's running values and metric objects."""
    rank, world = plan.strategy.rank, plan.strategy.world
    plan.results.load_state_dict(state["results"], rank, world)
    _restore_logged_metrics(plan, state["logged_metrics"])
    if rank < len(metrics := state["metrics"]):
        load_metric_states(plan.module, metrics[rank], plan.strategy.device)


def roll_back(plan: Plan, path: Path) -> None:
    """Weights, optimisers, scaler and callbacks as a checkpoint has them; progress goes on.

    Learning rates stay those of now: the schedules have not gone back.
    """
    state, where = read_state(path), str(path)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in plan.optimizers]
    restore_model(plan, state, where)
    pairs = _pairs("optimisers", plan.optimizers, state["optimizer_states"], where)
    for (optimizer, saved), before in zip(pairs, rates, strict=True):
        restore.restore_optimizer(optimizer, saved)
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            group["lr"] = rate
    plan.precision.load_state_dict(state["scaler"])
    plan.window, plan.watched = Window(), []
    plan.results.reset()
    if state["progress"]["epoch"] == plan.progress.epoch:
        _restore_results(plan, state)
    # Whoever was asked to act since then is not due twice, nor late.
    plan.marks = {
        e.name: min(plan.marks.get(e.name, 0), e.interval.count(plan.progress)) for e in plan.events
    }
    plan.feed.load_state_dict(plan.feed.state_dict())
    for parameter in _trained(plan):
        parameter.grad = None


def _pairs(what: str, now: list[Any], saved: list[Any], where: str) -> Iterator[tuple[Any, Any]]:
    if len(now) != len(saved):
        said = f"the checkpoint has {len(saved)} {what}, the module makes {len(now)}"
        raise CheckpointError(said, where=where)
    return zip(now, saved, strict=True)


def _trained(plan: Plan) -> list[Tensor]:
    return [p for optimizer in plan.optimizers for p in parameters(optimizer)]


def _gradients(plan: Plan) -> list[Tensor | None]:
    """Half-summed gradients; a window that is complete needs none."""
    if plan.automatic and plan.window.batches == 0:
        return []
    found = [p.grad for p in _trained(plan)]
    if not plan.alone and not plan.strategy.broken:  # each process has its own half
        found = [None if grad is None else grad.clone() for grad in found]
        plan.strategy.average(grad for grad in found if grad is not None)
    return found


_ENTRY = ("name", "on_step", "on_epoch", "prog_bar", "logger")


def _logged_metrics(plan: Plan) -> list[dict[str, Any]]:
    """Which metric objects were logged in this epoch, under which names."""
    names = {id(part): name for name, part in plan.module.named_modules()}
    return [
        {"key": key, "metric": names[id(entry.metric)], "how": [getattr(entry, s) for s in _ENTRY]}
        for key, entry in plan.results.entries.items()
        if id(entry.metric) in names
    ]


def _restore_logged_metrics(plan: Plan, state: list[dict[str, Any]]) -> None:
    for saved in state:
        metric = plan.module.get_submodule(saved["metric"])
        how = dict(zip(_ENTRY, saved["how"], strict=True))
        plan.results.entries[saved["key"]] = Entry(**how, metric=metric)


def _unsaved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that no state_dict has and that yet are state; those of metrics are saved apart."""
    saved = module.state_dict(keep_vars=True)
    metrics = [f"{name}." for name in metric_states(module)]
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if name not in saved and not any(map(name.startswith, metrics))
    }


def _restore_flags(module: nn.Module, frozen: set[str], evaluating: set[str]) -> None:
    for name, parameter in module.named_parameters():
        if parameter.is_leaf:
            parameter.requires_grad_(name not in frozen)
    for name, part in module.named_modules():
        part.training = name not in evaluating


def _callback_states(plan: Plan) -> dict[str, Any]:
    found = [
        (callback.state_key, state)
        for callback in plan.callbacks
        if (state := callback.state_dict())
    ]
    keys = [key for key, _ in found]
    for key in keys:
        if keys.count(key) > 1:
            said = f"two callbacks save their state as {key!r}"
            raise CheckpointError(said, mend="give one of them another state_key")
    return dict(found)
