"""The progress line: live in a terminal or notebook, a few plain lines anywhere else."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from renshu.callbacks.callback import Callback
from renshu.intervals import Interval
from renshu.results import to_host

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_SECONDS_LIVE = 0.2
_BAR = 16
_LOSSES = {"train_loss", "train/loss", "train_loss_step", "loss_step"}
"""Under these names the module shows the loss itself."""


@dataclass
class View:
    """What is shown at a moment: where the run is, and the newest values."""

    stage: str
    epoch: int
    epochs: int | None
    done: int
    total: float
    step: int
    values: dict[str, float] = field(default_factory=dict)
    rate: float | None = None
    left: float | None = None

    def line(self) -> str:
        """For people: `epoch 2/10 ━━━━──── 120/400 0:12 left 1,234 samples/s loss 0.123`."""
        epochs = "" if self.epochs is None else f"/{self.epochs}"
        parts = [f"epoch {self.epoch + 1}{epochs}"] if self.stage == "train" else [self.stage]
        if math.isfinite(self.total) and self.total > 0:
            filled = round(_BAR * min(1.0, self.done / self.total))
            parts += ["━" * filled + "─" * (_BAR - filled), f"{self.done}/{self.total:.0f}"]
        else:
            parts.append(f"batch {self.done}")
        if self.left is not None:
            parts.append(f"{_clock(self.left)} left")
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f} samples/s")
        parts += [f"{name} {value:.4g}" for name, value in self.values.items()]
        return "  ".join(parts)

    def record(self) -> str:
        """For programs: `epoch=1 step=800 loss=0.123 samples/s=1234`."""
        values: dict[str, Any] = {"epoch": self.epoch, "step": self.step}
        if self.stage != "train":
            values = {"stage": self.stage, "batch": self.done}
        values |= {re.sub(r"[\s=]", "_", name): f"{v:.6g}" for name, v in self.values.items()}
        if self.rate is not None:
            values["samples/s"] = f"{self.rate:.0f}"
        return " ".join(f"{name}={value}" for name, value in values.items())


class ProgressBar(Callback):
    """One line with the epoch, a bar, the loss, what is logged with `prog_bar=True`, speed, time.

    In a terminal or notebook it is redrawn in place at most five times a second, also while
    validating; anywhere else a line of `key=value` is printed at the end of an epoch, no two within
    10 seconds of each other. Values are read from the device when something is drawn, not before.

    Args:
        refresh_rate: 0 shows nothing; any other number has no meaning here, since time decides.
        leave: leave the last line standing at the end.
    """

    interval = Interval(1, "epochs")

    def __init__(self, refresh_rate: int = 1, leave: bool = True) -> None:
        self.refresh_rate = refresh_rate
        self.leave = leave
        self._display: Any = None
        self._due = self._epoch_due = math.inf

    # --- training

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        self._steps = trainer.estimated_stepping_batches
        self._rate: float | None = None
        self._pace: float | None = None
        self._open(trainer)
        self._restart(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() >= self._due:
            self._draw(self._training(trainer))

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        if time.monotonic() >= self._epoch_due:
            self._draw(self._training(trainer))

    def on_fit_end(self, trainer: Trainer, module: Module) -> None:
        if self._display is not None:
            self._draw(self._training(trainer))
        self._close()

    def _training(self, trainer: Trainer) -> View:
        self._measure(trainer)
        progress, batches = trainer.progress, trainer.num_training_batches
        view = View(
            "train", progress.epoch, trainer.max_epochs, progress.batch, batches, progress.step
        )
        if not math.isfinite(batches) and trainer.max_steps > 0:
            view.done, view.total = progress.step, trainer.max_steps
        tensors = dict(trainer.progress_bar_metrics)
        if trainer.last_loss is not None and not _LOSSES & tensors.keys():
            tensors = {"loss": trainer.last_loss, **tensors}
        view.values = dict(zip(tensors, to_host(tensors.values()), strict=True))
        view.rate = self._rate
        if self._pace is not None and math.isfinite(self._steps):
            view.left = max(0.0, (self._steps - progress.step) * self._pace)
        return view

    def _restart(self, trainer: Trainer) -> None:
        """Measure the speed from here on: validation does not count."""
        self._since = time.monotonic(), trainer.progress.samples, trainer.progress.step

    def _measure(self, trainer: Trainer) -> None:
        then, samples, steps = self._since
        seconds = time.monotonic() - then
        samples, steps = trainer.progress.samples - samples, trainer.progress.step - steps
        if seconds <= 0 or samples <= 0:
            return
        self._rate = _smooth(self._rate, samples / seconds)
        if steps > 0:
            self._pace = _smooth(self._pace, seconds / steps)
        self._restart(trainer)

    # --- evaluation

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        self._seen, self._inside_fit = 0, self._display is not None
        if self._inside_fit:
            self._measure(trainer)
        elif not trainer.sanity_checking:
            self._open(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        module: Module,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._seen += 1
        if time.monotonic() >= self._due:
            stage, progress = trainer.state_stage or "", trainer.progress
            total = sum(trainer.num_val_batches)
            self._draw(View(stage, progress.epoch, None, self._seen, total, progress.step))

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        if self._inside_fit:
            self._restart(trainer)
        else:
            self._close()

    on_test_start = on_predict_start = on_validation_start
    on_test_batch_end = on_predict_batch_end = on_validation_batch_end
    on_test_end = on_predict_end = on_validation_end

    # --- drawing

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        self._close()

    def teardown(self, trainer: Trainer, module: Module, stage: str) -> None:
        # An evaluation that a signal cut short has no end of its own.
        self._close()

    def _open(self, trainer: Trainer) -> None:
        if trainer.is_global_zero and self.refresh_rate:
            self._display = _display(self.leave)
            self._wait()

    def _draw(self, view: View) -> None:
        self._display.show(view)
        self._wait()

    def _wait(self) -> None:
        now = time.monotonic()
        self._due, self._epoch_due = now + self._display.seconds, now + self._display.epoch_seconds

    def _close(self) -> None:
        if self._display is not None:
            self._display.close()
        self._display, self._due, self._epoch_due = None, math.inf, math.inf


RichProgressBar = TQDMProgressBar = ProgressBar
"""The names that people coming from Lightning know."""


class _Plain:
    """Lines of `key=value`, at the end of an epoch if the last one is some time ago."""

    seconds = math.inf
    epoch_seconds = 10.0

    def show(self, view: View) -> None:
        sys.stdout.write(view.record() + "\n")
        sys.stdout.flush()

    def close(self) -> None: ...


class _Terminal:
    """One line, redrawn in place; what the program prints meanwhile goes above it."""

    seconds = _SECONDS_LIVE
    epoch_seconds = math.inf

    def __init__(self, leave: bool) -> None:
        self.leave = leave
        self._live: Any = None

    def show(self, view: View) -> None:
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            self._live = Live(auto_refresh=False, transient=not self.leave)
            self._live.start()
        self._live.update(Text(view.line(), no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


class _Notebook:
    """One output of the cell, updated in place."""

    seconds = _SECONDS_LIVE
    epoch_seconds = math.inf

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, view: View) -> None:
        from IPython.display import display  # type: ignore[import-not-found]

        content = {"text/plain": view.line()}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)

    def close(self) -> None: ...


def _display(leave: bool) -> _Plain | _Terminal | _Notebook:
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if shell is not None and hasattr(shell, "kernel"):
        return _Notebook()
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return _Terminal(leave)
    return _Plain()


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else 0.7 * old + 0.3 * new


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
