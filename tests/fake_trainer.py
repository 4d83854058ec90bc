"""A trainer small enough to drive callbacks by hand: epochs of batches, validations, saves."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from renshu.callbacks.callback import Callback
from renshu.intervals import Progress
from renshu.options import TrainerOptions

Metrics = Mapping[str, float]


class FakeTrainer:
    """Calls hooks in the real order; a checkpoint is a folder with the callbacks' states."""

    def __init__(self, run_dir: Path, callbacks: list[Callback], **options: Any) -> None:
        self.options = TrainerOptions(**options)
        self.run_dir = run_dir
        self.callbacks = callbacks
        self.progress = Progress()
        self.callback_metrics: dict[str, torch.Tensor] = {}
        self.num_val_batches = [1]
        self.sanity_checking = self.should_stop = False
        self.is_global_zero = True
        self.printed: list[str] = []
        self.lightning_module: Any = SimpleNamespace(print=self.printed.append)
        self.writes: list[str] = []
        self.in_flight: list[tuple[Path, str]] = []

    @property
    def global_step(self) -> int:
        return self.progress.step

    @property
    def current_epoch(self) -> int:
        return self.progress.epoch

    def save_checkpoint(self, path: str | Path, weights_only: bool = False) -> None:
        """Copies the state now; the folder appears when waited for, like a background write."""
        self.wait_for_checkpoints()
        states = {callback.state_key: callback.state_dict() for callback in self.callbacks}
        state = {"step": self.global_step, "callbacks": states}
        self.writes.append(Path(path).name)
        self.in_flight.append((Path(path), json.dumps(state)))

    def wait_for_checkpoints(self) -> None:
        for path, text in self.in_flight:
            path.mkdir(parents=True)
            (path / "state.json").write_text(text)
        self.in_flight.clear()

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

    def fire(self, before: Progress) -> None:
        for callback in self.callbacks:
            due = callback.interval
            if due is not None and due.count(self.progress) > due.count(before):
                callback.on_interval(self, self.lightning_module)  # type: ignore[arg-type]

    def start(self, resume: Path | None = None) -> None:
        self.call("setup", "fit")
        if resume is not None:
            state = json.loads((resume / "state.json").read_text())
            for callback in self.callbacks:
                callback.load_state_dict(state["callbacks"][callback.state_key])
        self.call("on_fit_start")
        self.call("on_train_start")

    def step(self, validation: Metrics | None = None) -> None:
        before = Progress(**vars(self.progress))
        self.progress.step += 1
        self.progress.batch += 1
        self.progress.batches += 1
        if validation is not None:
            self.validate(validation)
        self.fire(before)

    def end_epoch(self, validation: Metrics | None = None, train: Metrics | None = None) -> None:
        before = Progress(**vars(self.progress))
        if validation is not None:
            self.validate(validation)
        self.log(train or {})
        self.call("on_train_epoch_end")
        self.progress.epochs += 1
        self.fire(before)
        self.progress.epoch += 1
        self.progress.batch = 0

    def epoch(self, validation: Metrics | None = None, steps: int = 1) -> None:
        self.call("on_train_epoch_start")
        for _ in range(steps):
            self.step()
        self.end_epoch(validation)

    def run(
        self, metric: Callable[[int], Metrics | None], epochs: int, resume: Path | None = None
    ) -> int:
        """A fit with validation each epoch; returns the epochs that ran in all."""
        self.start(resume)
        while self.progress.epoch < epochs and not self.should_stop:
            self.epoch(metric(self.progress.epoch))
        self.call("on_train_end")
        self.wait_for_checkpoints()
        return self.progress.epoch

    def folders(self) -> list[str]:
        return sorted(path.name for path in (self.run_dir / "checkpoints").glob("*"))


def values(*scores: float, key: str = "val_loss") -> Callable[[int], Metrics | None]:
    return lambda epoch: None if math.isinf(scores[epoch]) else {key: scores[epoch]}
