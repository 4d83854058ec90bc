"""The progress line: live in a terminal or notebook, a few plain lines anywhere else."""

from __future__ import annotations

import math
import os
import re
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from renshu.callbacks.callback import Callback
from renshu.intervals import Interval
from renshu.results import to_host

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_BAR = 16
_SEPARATORS = re.compile(r"[\s=]")
_LOSSES = {"train_loss", "train/loss", "train_loss_step", "loss_step"}
"""Under these names the module shows the loss itself."""


class ProgressBar(Callback):
    """One line with the epoch, a bar, time left, speed, the loss and the values of the bar.

    In a terminal or notebook it is redrawn in place at most five times a second, also while
    validating; anywhere else a line of `key=value` is printed at the end of an epoch, no two within
    10 seconds of each other, and at the end. Values are read from the device when something is
    drawn, not before. Speed and time left are means over the fit without its validations.

    Args:
        refresh_rate: 0 shows nothing; any other number has no meaning here, since time decides.
        leave: leave the last line standing at the end.
    """

    interval = Interval(1, "epochs")

    def __init__(self, refresh_rate: int = 1, leave: bool = True) -> None:
        self.refresh_rate, self.leave = refresh_rate, leave
        self._display: Any = None
        self._due, self._began = math.inf, 0.0

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        if trainer.is_global_zero and self.refresh_rate:
            self._display = _display(self.leave)
            self._steps = trainer.estimated_stepping_batches
            self._before = trainer.progress.samples, trainer.progress.step
            self._began = time.monotonic()
            self._due = self._began + self._display.seconds

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if time.monotonic() >= self._due and self._display.live:
            self._draw(trainer)

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        if time.monotonic() >= self._due:
            self._draw(trainer)

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        self._seen, self._paused = 0, time.monotonic()

    def on_validation_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if time.monotonic() >= self._due and self._display.live:
            self._show(f"validation  {_bar(self._seen, sum(trainer.num_val_batches))}")
        self._seen += 1

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        self._began += time.monotonic() - self._paused

    def on_fit_end(self, trainer: Trainer, module: Module) -> None:
        if self._display is not None:
            self._draw(trainer)

    def teardown(self, trainer: Trainer, module: Module, stage: str) -> None:
        if self._display is not None:
            self._display.close()
        self._display, self._due = None, math.inf

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        self.teardown(trainer, module, "fit")

    def _show(self, text: str) -> None:
        self._display.show(text)
        self._due = time.monotonic() + self._display.seconds

    def _draw(self, trainer: Trainer) -> None:
        tensors = trainer.progress_bar_metrics
        if trainer.last_loss is not None and not _LOSSES & tensors.keys():
            tensors = {"loss": trainer.last_loss, **tensors}
        values = dict(zip(tensors, to_host(tensors.values()), strict=True))
        seconds = max(time.monotonic() - self._began, 1e-9)
        samples = (trainer.progress.samples - self._before[0]) / seconds
        if self._display.live:
            parts = [*self._where(trainer, seconds), f"{samples:,.0f} samples/s"]
            text = "  ".join(parts + [f"{name} {value:.4g}" for name, value in values.items()])
        else:
            text = f"epoch={trainer.current_epoch} step={trainer.global_step}"
            for name, value in {**values, "samples/s": samples}.items():
                text += f" {_SEPARATORS.sub('_', name)}={value:.6g}"
        self._show(text)

    def _where(self, trainer: Trainer, seconds: float) -> list[str]:
        """`epoch 2/10`, a bar with `120/400`, `0:00:12 left`."""
        progress, epochs = trainer.progress, trainer.max_epochs
        done, total = progress.batch, trainer.num_training_batches
        if math.isinf(total) and trainer.max_steps > 0:
            done, total = progress.step, trainer.max_steps
        epoch = f"epoch {progress.epoch + 1}" + (f"/{epochs}" if epochs else "")
        parts = [epoch, _bar(done, total)]
        steps = progress.step - self._before[1]
        if steps > 0 and math.isfinite(self._steps):
            left = max(0.0, (self._steps - progress.step) * seconds / steps)
            parts.append(f"{timedelta(seconds=round(left))} left")
        return parts


def _bar(done: int, total: float) -> str:
    if not 0 < total < math.inf:
        return f"batch {done}"
    filled = round(_BAR * min(1.0, done / total))
    return f"{'━' * filled}{'─' * (_BAR - filled)}  {done}/{total}"


class _Plain:
    """Lines of `key=value`."""

    live, seconds = False, 10.0

    def show(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def close(self) -> None: ...


class _Terminal:
    """One line, redrawn in place; what the program prints meanwhile goes above it."""

    live, seconds = True, 0.2

    def __init__(self, leave: bool) -> None:
        from rich.live import Live

        self._line = Live(auto_refresh=False, transient=not leave)
        self._line.start()

    def show(self, text: str) -> None:
        from rich.text import Text

        self._line.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        self._line.stop()


class _Notebook(_Plain):
    """One output of the cell, updated in place."""

    live, seconds = True, 0.2
    _handle: Any = None

    def show(self, text: str) -> None:
        from IPython.display import display

        content = {"text/plain": text}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _display(leave: bool) -> _Plain | _Terminal:
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        return _Notebook()
    if sys.stdout.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return _Terminal(leave)
    return _Plain()


RichProgressBar = TQDMProgressBar = ProgressBar
"""Lightning's names."""
