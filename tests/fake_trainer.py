"""A trainer small enough to drive callbacks by hand: epochs of batches, validations, saves."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from renshu.callbacks.callback import Callback
from renshu.intervals import Progress
from renshu.options import TrainerOptions
from renshu.strategies import SingleDevice

Metrics = Mapping[str, float]


class FakeTrainer:
    """Calls hooks in the real order; a checkpoint is a folder with the callbacks' states."""

    def __init__(self, run_dir: Path, callbacks: list[Callback], **options: Any) -> None:
        self.options = TrainerOptions(**options)
        self.run_dir = run_dir
        self.callbacks = callbacks
        self.progress = Progress()
        self.callback_metrics: dict[str, torch.Tensor] = {}
        self.num_val_batches, self.num_training_batches = [1], 4
        self.sanity_checking = self.should_stop = self.interrupted = False
        self.marks: dict[str, int] = {}
        self.is_global_zero = True
        self.strategy = SingleDevice(torch.device("cpu"))
        self.printed: list[str] = []
        self.lightning_module: Any = SimpleNamespace(print=self.printed.append)
        self.writes: list[str] = []
        self.in_flight: list[tuple[Path, str]] = []

    def agree_on(self, value: float | None) -> float | None:
        return value

    @property
    def global_step(self) -> int:
        return self.progress.step

    @property
    def current_epoch(self) -> int:
        return self.progress.epoch

    def save_checkpoint(
        self, path: str | Path, weights_only: bool = False, background: bool = False
    ) -> None:
        """Copies the state now; the folder appears when waited for, like a background write."""
        self.wait_for_checkpoints()
        states = {callback.state_key: callback.state_dict() for callback in self.callbacks}
        state = {"progress": vars(self.progress), "marks": self.marks, "callbacks": states}
        self.writes.append(Path(path).name)
        self.in_flight.append((Path(path), json.dumps(state)))

    def wait_for_checkpoints(self) -> None:
        for path, text in self.in_flight:
            path.mkdir(parents=True)
            (path / "state.json").write_text(text)
        self.in_flight.clear()

    def discard_checkpoint(self, path: Path) -> None:
        shutil.rmtree(path)

    def call(self, hook: str, *args: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(self, self.lightning_module, *args)

    def log(self, metrics: Metrics) -> None:
        self.callback_metrics.update(
            {k: torch.tensor(v, dtype=torch.float64) for k, v in metrics.items()}
        )

    def validate(self, metrics: Metrics) -> None:
        self.call("on_validation_start")
        self.log(metrics)
        self.call("on_validation_end")

    def fire(self) -> None:
        """The save event of all callbacks, as the loop does it: marked first, then run."""
        for callback in self.callbacks:
            if callback.interval is not None:
                count = callback.interval.count(self.progress)
                if count > self.marks.get(callback.state_key, 0):
                    self.marks[callback.state_key] = count
                    callback.on_interval(self, self.lightning_module)  # type: ignore[arg-type]

    def start(self, resume: Path | None = None) -> None:
        self.call("setup", "fit")
        if resume is not None:
            state = json.loads((resume / "state.json").read_text())
            self.marks = state["marks"]
            self.progress = Progress(**state["progress"])
            for callback in self.callbacks:
                callback.load_state_dict(state["callbacks"][callback.state_key])
        self.call("on_fit_start")
        self.call("on_train_start")

    def step(self, validation: Metrics | None = None, *, last: bool = False) -> None:
        """One batch and the events after it; with `last` it ends the epoch."""
        if self.progress.epochs > self.progress.epoch:
            self.progress.epoch, self.progress.batch = self.progress.epochs, 0
        if self.progress.batch == 0:
            self.call("on_train_epoch_start")
        self.progress.step += 1
        self.progress.batch += 1
        self.progress.batches += 1
        self.progress.epochs += last
        if validation is not None:
            self.validate(validation)
        if last:
            self.call("on_train_epoch_end")
        self.fire()

    def epoch(self, validation: Metrics | None = None, steps: int = 1) -> None:
        for number in range(1, steps + 1):
            self.step(validation if number == steps else None, last=number == steps)

    def end(self) -> None:
        self.call("on_train_end")
        self.call("on_fit_end")
        self.wait_for_checkpoints()

    def run(
        self, metric: Callable[[int], Metrics | None], epochs: int, resume: Path | None = None
    ) -> int:
        """A fit with validation each epoch; returns the epochs that ran in all."""
        self.start(resume)
        while self.progress.epochs < epochs and not self.should_stop:
            self.epoch(metric(self.progress.epochs))
        self.end()
        return self.progress.epochs

    def folders(self) -> list[str]:
        return sorted(path.name for path in (self.run_dir / "checkpoints").glob("*"))


def values(*scores: float, key: str = "val_loss") -> Callable[[int], Metrics | None]:
    return lambda epoch: None if math.isinf(scores[epoch]) else {key: scores[epoch]}
