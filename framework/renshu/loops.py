"""The loops: fit, evaluate, predict. The whole way of a batch to the optimiser step is in here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from renshu.data import batch_size
from renshu.errors import ConfigError, NonFiniteError
from renshu.feed import Feed
from renshu.intervals import Interval
from renshu.plan import Event, Plan, Window
from renshu.planning import callback_events, log_interval, positional, validation_interval
from renshu.results import BATCH, Results, to_host


def fit(plan: Plan) -> None:
    """Train until a limit is reached, a stop is asked for, or a signal comes."""
    if plan.sanity_batches and not plan.resumed:
        _sanity_check(plan)
    plan.call("on_train_start")
    plan.events = _plan_events(plan)
    while not finished(plan):
        _epoch(plan)
    if plan.signal is None:
        # Callbacks may put final weights in place here; an interrupted run is saved as it stands.
        plan.call("on_train_end")


def finished(plan: Plan) -> bool:
    """Whether training ends here. `should_stop` waits for min_epochs and min_steps."""
    progress = plan.progress
    if plan.signal is not None:
        return True
    if plan.max_epochs is not None and progress.epochs >= plan.max_epochs:
        return True
    if plan.max_steps is not None and progress.step >= plan.max_steps:
        return True
    if plan.stop_after is not None and plan.stop_after.count(progress) > 0:
        return True
    if plan.max_seconds is not None and progress.seconds >= plan.max_seconds:
        return True
    return plan.halt and progress.epochs >= plan.min_epochs and progress.step >= plan.min_steps


def _epoch(plan: Plan) -> None:
    """One training epoch, or what is left of it: batches, events, the epoch's end."""
    feed, progress, results = plan.feed, plan.progress, plan.results
    assert feed is not None
    _start_epoch(plan)
    micro_batch = _automatic if plan.automatic and not plan.closure else _special(plan)
    before, after = plan.hooks["on_train_batch_start"], plan.hooks["on_train_batch_end"]
    transfers, results.phase = plan.transfers, BATCH
    for batch, count in feed.epoch(progress.epoch, progress.epoch_samples, progress.batch):
        for transfer in transfers:
            batch = transfer(batch, 0)
        index = progress.batch
        results.batch, results.count = batch, count
        if before and -1 in [hook(batch, index) for hook in before]:
            break
        outputs = micro_batch(plan, batch, index)
        if count is None:
            count = _samples(batch)
        progress.batch += 1
        progress.batches += 1
        progress.samples += count
        progress.epoch_samples += count
        for hook in after:
            hook(outputs, batch, index)
        if feed.last:
            break
        if progress.batches >= plan.wake or plan.halt:
            _events(plan)
            if finished(plan):
                return
    _refuse_empty(plan)
    progress.epochs = progress.epoch + 1
    _events(plan)


def _start_epoch(plan: Plan) -> None:
    progress, results = plan.progress, plan.results
    plan.module.__dict__["_results"] = results
    if plan.resumed:
        # What was due when the run was interrupted and not done yet is done now.
        plan.resumed = False
        _events(plan)
    if progress.epochs > progress.epoch:
        progress.epoch, progress.batch, progress.epoch_samples = progress.epochs, 0, 0
    if progress.batch == 0:
        results.reset()
        results.phase = "epoch"
        plan.trainer.reload_loaders(plan)
        plan.call("on_train_epoch_start")
    plan.wake = _wake(plan)


def _samples(batch: Any) -> int:
    """Samples of a batch whose loader does not say; 1 where its tensors disagree."""
    try:
        return batch_size(batch)
    except ConfigError:
        return 1


def _refuse_empty(plan: Plan) -> None:
    if plan.progress.batches == 0:
        raise ConfigError(
            "the training loader gave no batch",
            where="train_dataloader",
            allowed="at least one batch an epoch",
            mend="check the data set's length, drop_last and limit_train_batches",
        )


# --- one micro-batch


def _automatic(plan: Plan, batch: Any, index: int) -> Any:
    """Forward, backward, and the optimisers' step when the window is full."""
    output = _forward_backward(plan, batch, index)
    window = plan.window
    if window.batches == plan.accumulate or (plan.feed.last and window.batches):  # type: ignore[union-attr]
        scaler, precision, stepped = plan.precision.scaler, plan.precision, True
        if plan.accumulate > 1:
            _rescale(plan)
        for optimizer in plan.optimizers:
            plan.prepare(optimizer)
            if scaler is None:
                optimizer.step()
            else:
                stepped = precision.step(optimizer) and stepped
        if scaler is not None:
            scaler.update()
        _count_step(plan, stepped)
    return output


def _forward_backward(plan: Plan, batch: Any, index: int) -> Any:
    """training_step, zero_grad at the start of a window, backward. Returns the step's output."""
    forward = plan.forward
    if forward is None:
        output = plan.module.training_step(batch, index) if plan.takes_index else (
            plan.module.training_step(batch)
        )  # fmt: skip
    else:
        with forward:
            output = plan.module.training_step(*((batch, index) if plan.takes_index else (batch,)))
    if output is None:
        return None
    loss, items = (output, None) if isinstance(output, Tensor) else _read_loss(output)
    if not loss.requires_grad:
        raise _no_graph(plan, loss)
    if plan.window.batches == 0:
        _zero_gradients(plan, index)
    plan.loss = value = loss.detach()
    plan.watched.append((plan.progress.step, "loss", value))
    if plan.accumulate > 1:
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


def _read_loss(output: Any) -> tuple[Tensor, Any]:
    """The loss as a mean, and the number of items it is a mean over if it says so."""
    if isinstance(output, dict):
        if "loss_sum" in output and "num_items" in output:
            return output["loss_sum"] / output["num_items"], output["num_items"]
        if isinstance(output.get("loss"), Tensor):
            return output["loss"], output.get("num_items")
    raise ConfigError(
        f"training_step returned {type(output).__name__}"
        + (f" with the keys {sorted(map(str, output))}" if isinstance(output, dict) else ""),
        allowed="a loss Tensor, a dict with 'loss' (and 'num_items') or 'loss_sum' and 'num_items',"
        " or None to leave the batch out",
    )


def _no_graph(plan: Plan, loss: Tensor) -> ConfigError:
    frozen = not any(p.requires_grad for p in plan.module.parameters())
    return ConfigError(
        "the loss of training_step has no graph, so it cannot be differentiated",
        where=f"{type(plan.module).__name__}.training_step, batch {plan.progress.batch}",
        allowed="a 0-dim Tensor computed from parameters that require gradients",
        mend="all parameters are frozen: unfreeze some" if frozen else "do not detach the loss",
    )


def _zero_gradients(plan: Plan, index: int) -> None:
    if plan.plain_gradients is not None:
        for parameter in plan.plain_gradients:
            parameter.grad = None
        return
    for optimizer in plan.optimizers:
        for hook in plan.hooks["on_before_zero_grad"]:
            hook(optimizer)
        plan.module.optimizer_zero_grad(plan.progress.epoch, index, optimizer)


def _weigh(plan: Plan, loss: Tensor, items: Any) -> Tensor:
    """The loss by its share of the window; exactly loss / k while all batches are of one size.

    The share is n_i / (n_1 k) with the first batch's n_1, since the window's sum is not known yet;
    `_rescale` mends the difference.
    """
    window = plan.window
    if items is None:
        items = plan.results.count
        items = _samples(plan.results.batch) if items is None else items
    if window.batches == 0:
        window.first, window.items = items, 0
    window.items = window.items + items
    if isinstance(items, int) and items == window.first:
        return loss / plan.accumulate
    return loss * (items / (window.first * plan.accumulate))


def _rescale(plan: Plan) -> None:
    """Make the gradients the exact mean over what the window really held."""
    window = plan.window
    expected = window.first * plan.accumulate
    if isinstance(window.items, int) and window.items == expected:
        return
    factor = expected / window.items
    for optimizer in plan.optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)


def _count_step(plan: Plan, stepped: bool) -> None:
    plan.window.batches = 0
    if stepped:
        plan.progress.step += 1
    else:
        plan.progress.skipped += 1


def _special(plan: Plan) -> Callable[[Plan, Any, int], Any]:
    return _with_closure if plan.automatic else _manual


def _with_closure(plan: Plan, batch: Any, index: int) -> Any:
    """For a module with its own optimizer_step, and for optimisers that need a closure (LBFGS)."""
    output: Any = None
    before = Window(**vars(plan.window))

    def closure() -> Any:
        nonlocal output
        plan.window = Window(**vars(before))
        output = _forward_backward(plan, batch, index)
        if output is None:
            return None
        if plan.accumulate > 1 and full():
            _rescale(plan)
        return plan.loss

    def full() -> bool:
        return plan.window.batches == plan.accumulate or plan.feed.last  # type: ignore[union-attr]

    if before.batches + 1 < plan.accumulate and not plan.feed.last:  # type: ignore[union-attr]
        closure()
        return output
    plan.stepped = False
    handle = plan.trainer.optimizer_handles[0]
    plan.module.optimizer_step(plan.progress.epoch, index, handle, closure)
    _count_step(plan, plan.stepped)
    return output


def _manual(plan: Plan, batch: Any, index: int) -> Any:
    """training_step does everything; a step is counted when any optimiser stepped."""
    plan.stepped = False
    with plan.forward or nullcontext():
        arguments = (batch, index) if plan.takes_index else (batch,)
        output = plan.module.training_step(*arguments)
    if plan.stepped:
        plan.progress.step += 1
    loss = output.get("loss") if isinstance(output, dict) else output
    if isinstance(loss, Tensor):
        plan.loss = loss.detach()
        plan.watched.append((plan.progress.step, "loss", plan.loss))
    return output


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
            event.run()
            if plan.signal is not None and event.name == "validate":
                plan.marks[event.name] = mark
    plan.wake = _wake(plan)


def _plan_events(plan: Plan) -> list[Event]:
    """All events of a fit in the order in which those due together run."""
    options = plan.trainer.options
    events = []
    if (interval := validation_interval(plan, options)) is not None:
        events.append(Event("validate", interval, partial(validate, plan)))
    events.append(Event("epoch", Interval(1, "epochs"), partial(close_epoch, plan)))
    for number, config in enumerate(plan.schedulers):
        run = partial(schedule, plan, number)
        events.append(Event(f"schedule {number}", config.due_every(), run))
    events.append(Event("log", log_interval(options), partial(log, plan)))
    return events + [Event(*event) for event in callback_events(plan)]


def _wake(plan: Plan) -> float:
    """Total of batches at which an event or limit may be due, at the earliest."""
    progress = plan.progress
    waits = [event.interval.batches_until(progress) for event in plan.events]
    if plan.max_steps is not None:
        waits.append(plan.max_steps - progress.step)
    if plan.stop_after is not None:
        waits.append(plan.stop_after.batches_until(progress))
    if plan.max_seconds is not None:
        waits.append(1)
    return progress.batches + min(waits, default=float("inf"))


def close_epoch(plan: Plan) -> None:
    """The event at the end of each training epoch: hooks, and the epoch's values."""
    plan.results.phase = "epoch"
    plan.module.__dict__["_results"] = plan.results
    plan.call("on_train_epoch_end")
    plan.trainer.take_epoch_values(plan.results)


def validate(plan: Plan) -> None:
    """The validation event inside a fit. The training results go on where they were."""
    phase = plan.results.phase
    evaluate(plan, "validation", plan.val_feeds)
    plan.module.__dict__["_results"] = plan.results
    plan.results.phase = phase


def schedule(plan: Plan, number: int) -> None:
    """Step one scheduler."""
    config = plan.schedulers[number]
    metric = None
    if config.reduce_on_plateau:
        metric = plan.trainer.monitored(config.monitor, "the scheduler", config.strict)
        if metric is None:
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


def refuse_non_finite(plan: Plan, read: list[float] | None = None) -> None:
    """Raise NonFiniteError for the first watched value that is NaN or infinite."""
    watched, plan.watched = plan.watched, []
    if not plan.check_finite:
        return
    numbers = to_host([value for _, _, value in watched]) if read is None else read
    for (step, what, _), number in zip(watched, numbers, strict=True):
        if number != number or number in (float("inf"), float("-inf")):
            raise NonFiniteError(
                f"the {what} became {number} at optimiser step {step} (counted from 0)",
                where=f"epoch {plan.progress.epoch}",
                allowed="finite numbers; nothing after this step was saved. "
                + plan.trainer.last_good(),
                mend="a lower learning rate, gradient_clip_val, precision 32-true or bf16-mixed;"
                " detect_anomaly=True shows the operation",
            )


# --- evaluation


def _sanity_check(plan: Plan) -> None:
    """A few validation batches before training, so that errors there show at once."""
    trainer = plan.trainer
    with trainer.sanity(plan) as feeds:
        plan.call("on_sanity_check_start")
        evaluate(plan, "validation", feeds)
        plan.call("on_sanity_check_end")


def evaluate(plan: Plan, stage: str, feeds: list[Feed]) -> list[dict[str, float]]:
    """Run a stage ("validation", "test") over its loaders; the logged values, a dict a loader.

    The module is in eval mode meanwhile; each part's own mode comes back afterwards. Outputs are
    not kept, so memory does not grow with the data.
    """
    results = Results("evaluate", plan.strategy.device)
    with _evaluating(plan, stage, results):
        plan.call(f"on_{stage}_start")
        plan.call(f"on_{stage}_epoch_start")
        step = getattr(plan.module, f"{stage}_step")
        for _ in _outputs(plan, stage, feeds, results, step):
            pass
        results.phase, results.loader = "epoch", None
        if plan.signal is not None:
            return []
        plan.call(f"on_{stage}_epoch_end")
        values = plan.trainer.take_epoch_values(results)
        plan.call(f"on_{stage}_end")
        results.reset()
    return plan.trainer.by_loader(values, len(feeds))


def predict(plan: Plan, feeds: list[Feed]) -> Iterator[tuple[int, Any]]:
    """Outputs of predict_step in order, each with the number of its loader."""
    results = Results("evaluate", plan.strategy.device)
    with _evaluating(plan, "predict", results):
        plan.call("on_predict_start")
        plan.call("on_predict_epoch_start")
        yield from _outputs(plan, "predict", feeds, results, plan.module.predict_step)
        plan.call("on_predict_epoch_end")
        plan.call("on_predict_end")


def _outputs(
    plan: Plan, stage: str, feeds: list[Feed], results: Results, step: Callable[..., Any]
) -> Iterator[tuple[int, Any]]:
    start, end = plan.hooks[f"on_{stage}_batch_start"], plan.hooks[f"on_{stage}_batch_end"]
    several = len(feeds) > 1
    takes = positional(step)
    for number, feed in enumerate(feeds):
        results.loader, results.phase = (number if several else None), BATCH
        for index, (batch, count) in enumerate(feed.epoch(plan.progress.epoch, 0, 0)):
            for transfer in plan.transfers:
                batch = transfer(batch, number)
            results.batch, results.count = batch, count
            for hook in start:
                hook(batch, index, number)
            with plan.forward or nullcontext():
                output = step(*(batch, index, number)[:takes])
            for hook in end:
                hook(output, batch, index, number)
            yield number, output
            if plan.signal is not None:
                return


class _evaluating:
    """Eval mode without gradients, and back to each part's own mode."""

    def __init__(self, plan: Plan, stage: str, results: Results):
        self.plan, self.stage, self.results = plan, stage, results

    def __enter__(self) -> None:
        module, trainer = self.plan.module, self.plan.trainer
        self.modes = [(part, part.training) for part in module.modules()]
        self.gradients = (
            torch.inference_mode() if trainer.options.inference_mode else torch.no_grad()
        )
        self.gradients.__enter__()
        getattr(module, f"on_{self.stage}_model_eval")()
        self.before = module.__dict__.get("_results")
        module.__dict__["_results"] = self.results
        trainer.enter_stage(self.stage)

    def __exit__(self, *error: Any) -> None:
        for part, training in self.modes:
            part.training = training
        self.plan.module.__dict__["_results"] = self.before
        self.gradients.__exit__(*error)
        self.plan.trainer.leave_stage()
