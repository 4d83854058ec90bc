"""Profilers: where the time of a fit or evaluation goes. Without one, nothing here is called."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from renshu.errors import ConfigError, unknown
from renshu.messages import say

if TYPE_CHECKING:
    from renshu.plan import Plan

LOOP = "the loop itself"


class Profiler:
    """Is told of each action when it begins and ends; a profiler of one's own overrides both.

    Actions are loader, transfer, training_step (validation_step, …), backward, clipping,
    optimiser, schedulers, callbacks, hooks (the module's own), loggers, checkpoint, validation, and
    what `profile` names. They nest. On a GPU work is queued: its time shows where the host waits.

    Args:
        dirpath: folder for what is written; None is the run's folder, else the working directory.
        filename: the summary goes to `<stage>-<filename>.txt`; None prints it.
    """

    def __init__(self, dirpath: str | Path | None = None, filename: str | None = None) -> None:
        self.dirpath, self.filename = dirpath, filename

    def start(self, action_name: str) -> None:
        """An action begins."""

    def stop(self, action_name: str) -> None:
        """The innermost action ends."""

    def summary(self) -> str:
        """What was found, as text."""
        return ""

    @contextmanager
    def profile(self, action_name: str) -> Iterator[str]:
        """Count what is done in a `with` block as an action."""
        self.start(action_name)
        try:
            yield action_name
        finally:
            self.stop(action_name)

    @contextmanager
    def watching(self, plan: Plan) -> Iterator[None]:
        """Watch a fit or evaluation: its plan's functions are wrapped, and put back at the end."""
        with ExitStack() as undo:
            undo.enter_context(self.around(plan))
            _Wrapping(self, undo).wrap(plan)
            with self.profile(LOOP):
                yield
        self.describe(plan)

    def around(self, plan: Plan) -> AbstractContextManager[Any]:
        """What is to be active as long as something is watched."""
        return nullcontext()

    def describe(self, plan: Plan) -> None:
        """Print or write the summary."""
        if (text := self.summary()) and plan.trainer.is_global_zero:
            if self.filename is None:
                say(f"profile of {plan.stage}\n{text}")
            else:
                self._path(plan, f"{plan.stage}-{self.filename}.txt").write_text(text + "\n")

    def _path(self, plan: Plan, name: str) -> Path:
        folder = Path(self.dirpath or plan.trainer.run_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        return folder / name


class PassThroughProfiler(Profiler):
    """Watches nothing: the Trainer's when none is asked for."""

    @contextmanager
    def watching(self, plan: Plan) -> Iterator[None]:
        yield


class _Wrapping:
    """Puts a profiler around the functions of a plan."""

    def __init__(self, profiler: Profiler, undo: ExitStack) -> None:
        self.profiler, self.undo = profiler, undo

    def wrap(self, plan: Plan) -> None:
        parts: list[tuple[Any, str, str]] = [
            (plan, "step", "training_step"),
            (plan, "prepare", "clipping"),
            (plan.module, "backward", "backward"),
            (plan.module, "lr_scheduler_step", "schedulers"),
            (plan.trainer, "log_metrics", "loggers"),
            (plan.trainer, "save_checkpoint", "checkpoint"),
            *((c, "on_interval", "callbacks") for c in plan.callbacks if c.interval is not None),
        ]
        if plan.stage != "train":
            parts.append((plan.module, step := f"{plan.stage}_step", step))
        for owner, name, row in parts:
            self.put(owner, name, self.timed(getattr(owner, name), row))
        self.put(plan, "own_backward", True)
        self.put(plan, "transfers", [self.timed(f, "transfer") for f in plan.transfers])
        hooks = {name: [self.hook(h) for h in found] for name, found in plan.hooks.items()}
        self.put(plan, "hooks", hooks)
        self.feeds(plan)
        # The loaders may have been asked for again.
        hooks["on_train_epoch_start"].insert(0, lambda: self.feeds(plan))
        if plan.stage == "train":
            hooks["on_validation_start"].insert(0, partial(self.profiler.start, "validation"))
            hooks["on_validation_end"].append(partial(self.profiler.stop, "validation"))
        for optimizer in plan.optimizers:
            before = optimizer.register_step_pre_hook(lambda *_: self.profiler.start("optimiser"))
            after = optimizer.register_step_post_hook(lambda *_: self.profiler.stop("optimiser"))
            self.undo.callback(before.remove)
            self.undo.callback(after.remove)

    def put(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute of one object until the end."""
        own = vars(owner)
        if name in own:
            self.undo.callback(own.__setitem__, name, own[name])
        else:
            self.undo.callback(own.pop, name)
        own[name] = value

    def timed(self, function: Callable[..., Any], row: str) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.profiler.start(row)
            try:
                return function(*arguments, **named)
            finally:
                self.profiler.stop(row)

        call.__dict__["__wrapped__"] = function  # the loops look at its signature
        return call

    def hook(self, hook: Callable[..., Any]) -> Callable[..., Any]:
        return self.timed(hook, "callbacks" if isinstance(hook, partial) else "hooks")

    def feeds(self, plan: Plan) -> None:
        for feed in plan.feeds:
            if "epoch" not in vars(feed):
                self.put(feed, "epoch", partial(self.items, feed.epoch))

    def items(self, epoch: Callable[..., Iterator[Any]], *position: int) -> Iterator[Any]:
        batches = iter(epoch(*position))
        take = self.timed(partial(next, batches, None), "loader")
        while (item := take()) is not None:
            yield item


class SimpleProfiler(Profiler):
    """A table of where the time went: each second counts in the innermost action under way.

    So the rows add up to the whole. All that happens in a validation counts as validation.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        extended: bool = True,
    ) -> None:
        super().__init__(dirpath, filename)
        self.extended = extended
        self.durations: dict[str, float] = defaultdict(float)
        """Action → seconds, without the actions inside it."""
        self.calls: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0

    def around(self, plan: Plan) -> AbstractContextManager[Any]:
        for found in (self.durations, self.calls, self._open):
            found.clear()
        return nullcontext()

    def _count(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.durations[self._open[-1]] += now - self._since
        self._since = now

    def start(self, action_name: str) -> None:
        self._count()
        inside = "validation" in self._open
        self.calls[action_name] += not inside
        self._open.append("validation" if inside else action_name)

    def stop(self, action_name: str) -> None:
        self._count()
        if self._open:
            self._open.pop()

    def summary(self) -> str:
        whole = sum(self.durations.values())
        head = f"{'action':<20}{'seconds':>12}" + f"{'calls':>10}{'ms a call':>12}{'share':>8}"
        lines = [head if self.extended else head[:32]]
        for row, seconds in sorted(self.durations.items(), key=itemgetter(1), reverse=True):
            line, calls = f"{row:<20}{seconds:>12.4f}", max(self.calls[row], 1)
            more = f"{calls:>10}{1000 * seconds / calls:>12.3f}{seconds / whole:>8.1%}"
            lines.append(line + more * self.extended)
        return "\n".join([*lines, f"{'total':<20}{whole:>12.4f}"])


class PyTorchProfiler(Profiler):
    """torch.profiler with the actions and modules by name, and its trace for Chrome or Perfetto.

    By default the second to fourth batch are profiled. The trace is `<stage>-trace.json`, or
    `<stage>-<filename>.json`.

    Args:
        group_by_input_shapes: a row for each shape; needs `record_shapes=True`.
        export_to_chrome: write the trace.
        row_limit: rows of the table; -1 for all.
        sort_by_key: of torch's table; None is self_device_time_total where there is CUDA, else
            self_cpu_time_total.
        record_module_names: name each submodule's forward.
        table_kwargs: further arguments of torch's table.
        profiler_kwargs: arguments of `torch.profiler.profile`, as `schedule` and `with_stack`.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        group_by_input_shapes: bool = False,
        export_to_chrome: bool = True,
        row_limit: int = 20,
        sort_by_key: str | None = None,
        record_module_names: bool = True,
        table_kwargs: dict[str, Any] | None = None,
        **profiler_kwargs: Any,
    ) -> None:
        super().__init__(dirpath, filename)
        self.group_by_input_shapes, self.export_to_chrome = group_by_input_shapes, export_to_chrome
        self.row_limit, self.sort_by_key = row_limit, sort_by_key
        self.record_module_names, self._table = record_module_names, table_kwargs or {}
        self._given, self._text = profiler_kwargs, ""
        self._torch: Any = None
        self._open: list[tuple[str, Any]] = []
        if group_by_input_shapes and not profiler_kwargs.get("record_shapes"):
            what, mend = "group_by_input_shapes has no shapes to group by", "record_shapes=True"
            raise ConfigError(what, where="PyTorchProfiler", mend=mend)

    @contextmanager
    def around(self, plan: Plan) -> Iterator[None]:
        from torch.profiler import profile, schedule

        self._text, self._open = "", []
        given: dict[str, Any] = {
            "schedule": schedule(wait=1, warmup=1, active=3, repeat=1),
            "on_trace_ready": partial(self._ready, plan),
            **self._given,
        }
        with profile(**given) as self._torch, ExitStack() as undo:
            for name, part in plan.module.named_modules() if self.record_module_names else ():
                row = f"{name or 'module'}: {type(part).__name__}"
                before = part.register_forward_pre_hook(lambda *_, row=row: self.start(row))
                after = part.register_forward_hook(lambda *_, row=row: self.stop(row))
                undo.callback(before.remove)
                undo.callback(after.remove)
            yield

    def _ready(self, plan: Plan, found: Any) -> None:
        if self.export_to_chrome and plan.trainer.is_global_zero:
            path = self._path(plan, f"{plan.stage}-{self.filename or 'trace'}.json")
            found.export_chrome_trace(str(path))
            say(f"trace of {plan.stage}: {path}")
        rows = found.key_averages(group_by_input_shape=self.group_by_input_shapes)
        key = (
            self.sort_by_key
            or f"self_{'device' if torch.cuda.is_available() else 'cpu'}_time_total"
        )
        self._text = rows.table(key, self.row_limit, **self._table)

    def start(self, action_name: str) -> None:
        if action_name == "loader" and "validation" not in dict(self._open):
            self._torch.step()
        record = torch.profiler.record_function(action_name)
        self._open.append((action_name, record))
        record.__enter__()

    def stop(self, action_name: str) -> None:
        if self._open:
            self._open.pop()[1].__exit__(None, None, None)

    def summary(self) -> str:
        return self._text or "too few batches for the profiler's schedule"


PROFILERS = {"simple": SimpleProfiler, "pytorch": PyTorchProfiler}
"""What the Trainer's option `profiler` may name."""


def make_profiler(spec: Any) -> Profiler:
    """A profiler from the Trainer's option `profiler`: None, a name in PROFILERS, or a Profiler."""
    if spec is None or isinstance(spec, Profiler):
        return spec or PassThroughProfiler()
    if spec not in PROFILERS:
        raise unknown("profiler", spec, PROFILERS, "Trainer(profiler=)")
    return PROFILERS[spec]()
