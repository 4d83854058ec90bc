"""The loops: fit, evaluate, predict. The way of a batch from the feed to the optimiser's step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from renshu import planning, seeds
from renshu.data import apply, batch_size
from renshu.errors import ConfigError, NonFiniteError, unknown
from renshu.intervals import Interval
from renshu.messages import say
from renshu.optim import SchedulerConfig, parameters
from renshu.plan import Event, Plan, Window
from renshu.results import (
    BATCH,
    Results,
    by_loader,
    load_metric_states,
    metric_states,
    metrics,
    to_host,
)
from renshu.weights import finite_parameters


def fit(plan: Plan) -> None:
    """Train until a limit is reached, a stop is asked for, or a signal comes."""
    validates = any(feed.length != 0 for feed in plan.val_feeds)
    if plan.sanity_batches and validates and not plan.resumed:
        _sanity_check(plan)
    if finished(plan) and not plan.resumed:  # max_epochs=0: there is nothing to start
        return
    plan.module._results = plan.results
    plan.call("on_train_start")
    plan.events = list(_plan_events(plan))
    if plan.resumed:
        # The generators come last, after whatever drew from them on the way.
        seeds.set_random_state(plan.random)
        # What was due when the run was interrupted and not done yet is done now.
        _events(plan)
    while not finished(plan):
        try:
            _epoch(plan)
        except NonFiniteError as error:
            if plan.options.on_nonfinite != "rollback":
                raise
            plan.trainer.roll_back(error)
    if plan.signal is None:
        # Callbacks may put final weights in place here; an interrupted run is saved as it stands.
        plan.call("on_train_end")


def finished(plan: Plan) -> bool:
    """Whether training ends here. `should_stop` waits for min_epochs and min_steps."""
    progress, options = plan.progress, plan.options
    if plan.signal is not None:
        return True
    for limit in plan.limits:
        # One of 0 is reached at once: max_epochs=0 trains nothing.
        if limit.size == 0 or limit.count(progress) > 0:
            return True
    enough = progress.step >= (options.min_steps or 0)
    return plan.halt and enough and progress.epochs >= (options.min_epochs or 0)


def _epoch(plan: Plan) -> None:
    """One training epoch, or what is left of it: batches, events, the epoch's end."""
    _start_epoch(plan)
    feed, progress, results = plan.feed, plan.progress, plan.results
    micro_batch = _automatic if plan.automatic else _manual
    if plan.closure:
        micro_batch = _with_closure
    before, after = plan.hooks["on_train_batch_start"], plan.hooks["on_train_batch_end"]
    transfers, results.phase, alone = plan.transfers, BATCH, plan.alone
    for batch, count in feed.epoch(progress.epoch, progress.epoch_samples, progress.batch):
        for transfer in transfers:
            batch = transfer(batch, 0)
        index = progress.batch
        results.batch, results.count = batch, count
        if before and -1 in [hook(batch, index) for hook in before]:
            break
        kept = _metrics_now(plan) if count == 0 else None  # another process's samples
        outputs = micro_batch(plan, batch, index)
        if kept is not None:
            load_metric_states(plan.module, kept, plan.strategy.device)
        if count is None or not alone:
            count = _samples(plan, batch, count)
        progress.batch += 1
        progress.batches += 1
        progress.samples += count
        progress.epoch_samples += count
        if after:
            if outputs is not None:  # hooks see a dict, with its loss free of the graph
                kept = outputs if isinstance(outputs, dict) else {}
                outputs = {**kept, "loss": plan.loss}
            for hook in after:
                hook(outputs, batch, index)
        if feed.last:
            break
        if progress.batches >= plan.wake or (plan.halt and alone):
            _events(plan)
            if finished(plan):
                _end_inside(plan)
                return
    if progress.batches == 0:
        mend = "check the data set's length, drop_last and limit_train_batches"
        raise ConfigError("the training loader gave no batch", allowed="at least one", mend=mend)
    progress.epochs = progress.epoch + 1
    _events(plan)


def _end_inside(plan: Plan) -> None:
    """The end of a fit inside an epoch: what an epoch's end does, unless a signal cut it short.

    A stop that was asked for is validated first, so that the last weights are measured.
    """
    if plan.signal is not None:
        return
    validate = next((event for event in plan.events if event.name == "validate"), None)
    if plan.halt and validate and plan.validated < plan.progress.batches:
        validate.run()
    close_epoch(plan)


def _start_epoch(plan: Plan) -> None:
    progress, results = plan.progress, plan.results
    if progress.epochs > progress.epoch:
        progress.epoch, progress.batch, progress.epoch_samples = progress.epochs, 0, 0
    if progress.batch == 0:
        if progress.batches:  # what on_train_start logged belongs to the first epoch
            results.reset()
        results.phase = "epoch"
        every = plan.options.reload_dataloaders_every_n_epochs
        if every and progress.epoch and progress.epoch % every == 0:
            for feed in plan.feeds:
                feed.close()
            found = planning.feeds(plan, None, "train", needed=False)
            plan.feed = found[0] if found else plan.feed
            plan.val_feeds = planning.feeds(plan, None, "validation", False) or plan.val_feeds
        plan.call("on_train_epoch_start")
    plan.wake = _wake(plan)


def _metrics_now(plan: Plan) -> dict[str, Any]:
    """Copies of the states of all metric objects, which update theirs in place."""
    return apply(metric_states(plan.module), lambda tensor: tensor.detach().clone())


def _samples(plan: Plan, batch: Any, count: int | None) -> int:
    """Samples of this step in all processes, where the loader does not say it at once."""
    if plan.feed.total is not None:
        return plan.feed.total
    return int(plan.strategy.sum(_size(batch) if count is None else count))


def _size(batch: Any) -> int:
    """Samples of a batch whose loader does not say; 1 where its tensors disagree."""
    try:
        return batch_size(batch)
    except ConfigError:
        return 1


# --- one micro-batch


def _automatic(plan: Plan, batch: Any, index: int) -> Any:
    """Forward, backward, and the optimisers' step when the window is full."""
    output = _forward_backward(plan, batch, index)
    window = plan.window
    if window.batches >= plan.accumulate or (plan.feed.last and window.batches):
        scaler, precision = plan.precision.scaler, plan.precision
        if plan.weighs:
            _rescale(plan)
        stepped = not plan.skips or _is_finite(plan)
        due = plan.optimizers
        if not plan.every_step:
            now = plan.progress.step
            due = [config.optimizer for config in plan.configs if config.is_due(now)]
        if scaler is not None:  # it refuses to step where nothing was scaled
            due = [o for o in due if any(p.grad is not None for p in parameters(o))]
        for optimizer in due if stepped else ():
            plan.prepare(optimizer)
            if scaler is None:
                optimizer.step()
            else:
                stepped = precision.step(optimizer) and stepped
        if scaler is not None and due:
            scaler.update()
        _count_step(plan, stepped)
    return output


def _forward_backward(plan: Plan, batch: Any, index: int) -> Any:
    """training_step, zero_grad at the start of a window, backward. Returns the step's output."""
    arguments = (batch, index)[: plan.takes]
    step = plan.step
    if not plan.alone:
        last = plan.window.batches + 1 == plan.accumulate or plan.feed.last
        plan.strategy.synchronise(step, last)
    if plan.forward is None:
        output = step(*arguments)
    else:
        with plan.forward:
            output = step(*arguments)
    if output is None:
        return None
    if isinstance(output, dict) and "losses" in output:
        return _backward_each(plan, output, index)
    loss, items = (output, None) if isinstance(output, Tensor) else _read_loss(output)
    if not loss.requires_grad or loss.numel() != 1:
        raise _no_loss(plan, loss)
    if plan.window.batches == 0:
        _zero_gradients(plan, index)
    plan.loss = value = loss.detach()
    plan.watched.append((plan.progress.step, "loss", value))
    if plan.weighs:
        loss = _weigh(plan, loss, items)
    for hook in plan.hooks["on_before_backward"]:
        hook(loss)
    if plan.precision.scaler is not None:
        loss = plan.precision.scaler.scale(loss)
    if plan.own_backward:
        plan.module.backward(loss)
    else:
        loss.backward()
    for hook in plan.hooks["on_after_backward"]:
        hook()
    plan.window.batches += 1
    return output


def _backward_each(plan: Plan, output: dict[str, Any], index: int) -> Any:
    """Gradients of each optimiser's own loss, for its parameters alone; nobody steps in between.

    So no optimiser changes what another one's graph needs, and both networks of a GAN learn from
    one forward pass without manual optimisation.
    """
    losses, known = output["losses"], [config.name for config in plan.configs]
    if wrong := [name for name in losses if name not in known]:
        where = f"{type(plan.module).__name__}.training_step"
        raise unknown("optimiser", wrong[0], map(str, known), where)
    if plan.weighs or plan.closure:
        said = "losses by optimiser go with one process, without accumulation and closures"
        raise ConfigError(said, mend="return one loss, or automatic_optimization = False")
    _zero_gradients(plan, index)
    step = plan.progress.step
    due = [config for config in plan.configs if config.name in losses and config.is_due(step)]
    for config in due:
        loss = losses[config.name]
        plan.watched.append((step, f"loss of {config.name}", loss.detach()))
        for hook in plan.hooks["on_before_backward"]:
            hook(loss)
        if plan.precision.scaler is not None:
            loss = plan.precision.scaler.scale(loss)
        own = [p for p in parameters(config.optimizer) if p.requires_grad]
        if own:
            loss.backward(inputs=own, retain_graph=config is not due[-1])
    for hook in plan.hooks["on_after_backward"]:
        hook()
    plan.loss = sum(loss.detach() for loss in losses.values())  # type: ignore[assignment]
    plan.window.batches += 1
    return output


def _read_loss(output: Any) -> tuple[Tensor, Any]:
    """The loss as a mean, and the number of items it is a mean over if it says so."""
    if isinstance(output, dict):
        if "loss_sum" in output and "num_items" in output:
            items = output["num_items"]
            some = items.clamp(min=1) if isinstance(items, Tensor) else max(items, 1)
            return output["loss_sum"] / some, items
        if isinstance(output.get("loss"), Tensor):
            return output["loss"], output.get("num_items")
    keys = f" with the keys {sorted(map(str, output))}" if isinstance(output, dict) else ""
    raise ConfigError(
        f"training_step returned {type(output).__name__}{keys}",
        allowed="a loss Tensor, a dict with 'loss' (and 'num_items') or 'loss_sum' and 'num_items',"
        " or None to leave the batch out",
    )


def _no_loss(plan: Plan, loss: Tensor) -> ConfigError:
    frozen = not any(p.requires_grad for p in plan.module.parameters())
    said = "the loss of training_step has no graph, so it cannot be differentiated"
    mend = "all parameters are frozen: unfreeze some" if frozen else "do not detach the loss"
    if loss.numel() != 1:
        said, mend = f"the loss of training_step has {loss.numel()} values", "take its mean"
    return ConfigError(
        said,
        where=f"{type(plan.module).__name__}.training_step, batch {plan.progress.batch}",
        allowed="a 0-dim Tensor computed from parameters that require gradients",
        mend=mend,
    )


def _zero_gradients(plan: Plan, index: int) -> None:
    if plan.plain_gradients:
        for optimizer in plan.optimizers:
            for group in optimizer.param_groups:  # a callback may have added some
                for parameter in group["params"]:
                    parameter.grad = None
        return
    for optimizer in plan.optimizers:
        for hook in plan.hooks["on_before_zero_grad"]:
            hook(optimizer)
        plan.module.optimizer_zero_grad(plan.progress.epoch, index, optimizer)


def _weigh(plan: Plan, loss: Tensor, items: Any) -> Tensor:
    """The loss by its share of the window; exactly loss / k while all batches are of one size.

    The share is n_i / (n_1 k) with the first batch's n_1, since the window's sum is not known yet;
    `_rescale` mends the difference. Of w processes, whose gradients will be averaged, n_1 counts
    the samples of all, and n_i is w times the process's own.
    """
    window, world, total = plan.window, plan.strategy.world, plan.feed.total
    if items is None:
        count = plan.results.count
        items = _size(plan.results.batch) if count is None else count
        total = items if plan.alone else _samples(plan, plan.results.batch, count)
    else:
        items = items * 0 if plan.results.count == 0 else items
        total = plan.strategy.sum(items)
    if window.batches == 0:
        window.first, window.items = total, 0
    window.items = window.items + total
    if isinstance(items, int) and items * world == window.first:
        return loss / plan.accumulate
    return loss * (items * world / (window.first * plan.accumulate))


def _rescale(plan: Plan) -> None:
    """Make the gradients the exact mean over what the window really held."""
    window = plan.window
    expected = window.first * plan.accumulate
    if isinstance(window.items, int) and window.items == expected:
        return
    factor = expected / window.items
    for optimizer in plan.optimizers:
        for parameter in parameters(optimizer):
            if parameter.grad is not None:
                parameter.grad.mul_(factor)


def _is_finite(plan: Plan) -> bool:
    """Whether loss and gradients can be stepped with. One host sync; the same in all processes."""
    every = [p.grad for o in plan.optimizers for p in parameters(o) if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(every)
    finite = bool(torch.isfinite(norm))
    if not finite:
        say(f"step {plan.progress.step} is left out: its gradients are not finite")
    return finite


def _count_step(plan: Plan, stepped: bool) -> None:
    plan.window.batches = 0
    plan.progress.step += stepped
    plan.progress.skipped += not stepped


def _with_closure(plan: Plan, batch: Any, index: int) -> Any:
    """For a module with its own optimizer_step, and for optimisers that need a closure (LBFGS)."""
    output: Any = None
    before = Window(**vars(plan.window))
    full = before.batches + 1 == plan.accumulate or plan.feed.last

    def closure() -> Any:
        nonlocal output
        plan.window = Window(**vars(before))
        output = _forward_backward(plan, batch, index)
        if output is None:
            if before.batches == 0:
                # What the window before left must not be stepped with again.
                _zero_gradients(plan, index)
            return None
        if plan.weighs and full:
            _rescale(plan)
        return plan.loss if plan.alone else plan.strategy.sum(plan.loss) / plan.strategy.world

    if not full:
        closure()
        return output
    plan.stepped = False
    plan.module.optimizer_step(plan.progress.epoch, index, plan.handles[0], closure)
    if plan.window.batches:
        _count_step(plan, plan.stepped)
    return output


def _manual(plan: Plan, batch: Any, index: int) -> Any:
    """training_step does everything; a step is counted when any optimiser stepped."""
    plan.stepped = False
    with plan.forward or nullcontext():
        output = plan.step(*(batch, index)[: plan.takes])
    plan.progress.step += plan.stepped
    loss = output.get("loss") if isinstance(output, dict) else output
    if isinstance(loss, Tensor):
        plan.loss = loss.detach()
        plan.watched.append((plan.progress.step, "loss", plan.loss))
    return output


def rehearsals(plan: Plan) -> Iterator[Callable[[], Any]]:
    """The training step of each batch of one more epoch, to be called; logged values are lost."""
    module, results = plan.module, Results("train", plan.strategy.device)
    module._results, results.phase = results, BATCH
    try:
        for index, (batch, count) in enumerate(plan.feed.epoch(plan.progress.epochs, 0, 0)):
            for transfer in plan.transfers:
                batch = transfer(batch, 0)
            results.batch, results.count = batch, count
            with plan.forward or nullcontext():
                yield partial(module.training_step, *(batch, index)[: plan.takes])
            if plan.signal is not None:
                return
    finally:
        module._results = plan.results


# --- events


def _events(plan: Plan) -> None:
    """Whatever is due now, in the order validate, schedule, log, save.

    What a signal leaves undone stays due, and is done first when the run is resumed.
    """
    plan.clock()
    for event in plan.events:
        if plan.signal is not None:
            return
        count = event.interval.count(plan.progress)
        mark = plan.marks.get(event.name, 0)
        if count > mark:
            # Marked first: a checkpoint saved by the event must hold it as done.
            plan.marks[event.name] = count
            if event.run() == []:  # a validation that a signal cut short stays due
                plan.marks[event.name] = mark
    plan.agree()
    plan.wake = _wake(plan)


def _plan_events(plan: Plan) -> Iterator[Event]:
    """All events of a fit in the order in which those due together run."""
    if (interval := planning.validation_interval(plan)) is not None:
        yield Event("validate", interval, partial(evaluate, plan, "validation"))
    yield Event("epoch", Interval(1, "epochs"), partial(close_epoch, plan))
    # In manual optimisation training_step steps them itself.
    for number, config in enumerate(plan.schedulers if plan.automatic else ()):
        yield Event(f"schedule {number}", config.due_every(), partial(schedule, plan, config))
    yield Event("log", planning.log_interval(plan.options), partial(log, plan))
    for number, callback in enumerate(plan.callbacks):
        if callback.interval is not None:
            run = partial(callback.on_interval, plan.trainer, plan.module)
            yield Event(f"{number}: {callback.state_key}", callback.interval, run)


def _wake(plan: Plan) -> float:
    """Total of batches at which an event or limit may be due, at the earliest."""
    due = [*plan.limits, *(event.interval for event in plan.events)]
    if plan.alone:
        waits = [interval.batches_until(plan.progress) for interval in due]
    else:  # agreeing costs: by the clock, and for signals, every 5 seconds
        steady = [i for i in due if not getattr(i, "is_clock", False)]
        often = 5 * plan.progress.batches // max(plan.progress.seconds, 1e-3)
        waits = [*(i.batches_until(plan.progress) for i in steady), max(1, often)]
    return plan.progress.batches + min(waits, default=math.inf)


def close_epoch(plan: Plan) -> None:
    """The event at the end of each training epoch: hooks, and the epoch's values."""
    plan.results.phase = "epoch"
    plan.call("on_train_epoch_end")
    plan.trainer.take_epoch_values(plan.results)


def schedule(plan: Plan, config: SchedulerConfig) -> None:
    """Step one scheduler, unless a callback took it away."""
    if config not in plan.schedulers:
        return
    metric = None
    if config.reduce_on_plateau:
        metrics = plan.trainer.callback_metrics
        if config.monitor in metrics:
            metric = plan.trainer.agree_on(float(metrics[config.monitor]))
        elif config.strict:
            raise unknown(
                "logged value", config.monitor, sorted(metrics), "the scheduler's monitor"
            )
        else:
            return
    if plan.progress.step:
        plan.module.lr_scheduler_step(config.scheduler, metric)


def log(plan: Plan) -> None:
    """Values of the step to the loggers, and the look for NaN, in one transfer."""
    values = plan.results.step_values() if plan.trainer.loggers else {}
    read = to_host([*values.values(), *(value for _, _, value in plan.watched)])
    refuse_non_finite(plan, read[len(values) :])
    if values:
        plan.trainer.log_metrics(dict(zip(values, read, strict=False)))


def refuse_non_finite(plan: Plan, read: list[float] | None = None, weights: bool = False) -> None:
    """Raise NonFiniteError for the first watched value, or `weights`, that is NaN or infinite."""
    watched, plan.watched = plan.watched, []
    if plan.options.on_nonfinite == "ignore":
        return
    if plan.options.on_nonfinite == "skip":  # what was watched had no step
        watched, read = [], []
    numbers = to_host(value for _, _, value in watched) if read is None else read
    found = [
        f"the {what} became {number} at optimiser step {step} (counted from 0)"
        for (step, what, _), number in zip(watched, numbers, strict=True)
        if not math.isfinite(number)
    ]
    if not found and weights and not finite_parameters(plan.module):
        found = [f"a parameter is NaN or infinite after optimiser step {plan.progress.step}"]
    found = next(filter(None, plan.strategy.gather(found, "the look for NaN")), [])
    if found:
        raise NonFiniteError(
            found[0],
            where=f"epoch {plan.progress.epoch}",
            allowed=f"finite numbers; nothing else is ever saved. {plan.trainer.last_good()}",
            mend="a lower learning rate, gradient_clip_val, precision 32-true or bf16-mixed;"
            " detect_anomaly=True shows the operation",
        )


# --- evaluation


def _sanity_check(plan: Plan) -> None:
    """A few validation batches before training, so that errors there show at once.

    They leave no trace in generators, metrics and limits.
    """
    trainer, limits = plan.trainer, [feed.limit for feed in plan.val_feeds]
    isolation = seeds.Isolation()
    isolation.seed(seeds.derive(trainer.seed, "sanity"))
    trainer.sanity_checking = True
    for feed in plan.val_feeds:
        feed.limit = min(plan.sanity_batches, 2**62 if feed.limit is None else feed.limit)
    generators, private = seeds.random_state(), seeds.private_states(plan.module)
    with isolation:
        plan.call("on_sanity_check_start")
        evaluate(plan, "validation")
        plan.call("on_sanity_check_end")
    seeds.set_random_state(generators)
    seeds.set_private_states(plan.module, private)
    for feed, limit in zip(plan.val_feeds, limits, strict=True):
        feed.limit = limit
    trainer.forget()


def evaluate(plan: Plan, stage: str) -> list[dict[str, float]]:
    """Run a stage ("validation", "test") over its loaders; the logged values, a dict a loader.

    Outputs are not kept, so memory does not grow with the data. One that a signal cuts short gives
    nothing and leaves no trace in generators and metrics, so that it can be done again.
    """
    random = seeds.random_state()
    fresh = [metric for _, metric in metrics(plan.module) if not metric._update_count]
    with _evaluating(plan, stage) as results:
        for _ in _outputs(plan, stage, results):
            pass
        if plan.signal is None:
            results.phase, results.loader = "epoch", None
            plan.call(f"on_{stage}_epoch_end")
            values = plan.trainer.take_epoch_values(results)
            plan.call(f"on_{stage}_end")
            results.reset()
            plan.validated = plan.progress.batches
            return by_loader(values, len(plan.val_feeds))
    seeds.set_random_state(random)
    for metric in fresh:
        metric.reset()
    return []


def predict(plan: Plan) -> Iterator[tuple[int, Any]]:
    """Outputs of predict_step in order, each with the number of its loader."""
    with _evaluating(plan, "predict") as results:
        yield from _outputs(plan, "predict", results)
        plan.call("on_predict_epoch_end")
        plan.call("on_predict_end")


@contextmanager
def _evaluating(plan: Plan, stage: str) -> Iterator[Results]:
    """Eval mode without gradients, then back to each part's own mode; values go to new results."""
    module, trainer = plan.module, plan.trainer
    modes = [(part, part.training) for part in module.modules()]
    outer = module._results, trainer.state_stage
    results = Results("evaluate", plan.strategy.device, plan.results.owners)
    with torch.inference_mode() if plan.options.inference_mode else torch.no_grad():
        getattr(module, f"on_{stage}_model_eval")()
        module.__dict__["_results"], trainer.state_stage = results, stage
        try:
            plan.call(f"on_{stage}_start")
            plan.call(f"on_{stage}_epoch_start")
            yield results
        finally:
            for part, training in modes:
                part.training = training
            module.__dict__["_results"], trainer.state_stage = outer


def _outputs(plan: Plan, stage: str, results: Results) -> Iterator[tuple[int, Any]]:
    step = getattr(plan.module, f"{stage}_step")
    start, end = plan.hooks[f"on_{stage}_batch_start"], plan.hooks[f"on_{stage}_batch_end"]
    takes, several = planning.positional(step), len(plan.val_feeds) > 1
    for number, feed in enumerate(plan.val_feeds):
        results.loader, results.phase = (number if several else None), BATCH
        for index, (batch, count) in enumerate(feed.epoch(plan.progress.epoch, 0, 0)):
            for transfer in plan.transfers:
                batch = transfer(batch, number)
            results.batch, results.count = batch, count
            # Another process's samples, only so that all take as many steps: they must not count.
            padded = count == 0
            kept = _metrics_now(plan) if padded else {}
            for hook in () if padded else start:
                hook(batch, index, number)
            with plan.forward or nullcontext():
                output = step(*(batch, index, number)[:takes])
            for hook in () if padded else end:
                hook(output, batch, index, number)
            if padded:
                load_metric_states(plan.module, kept, plan.strategy.device)
            else:
                yield number, output
            if plan.signal is not None:
                return
