"""What each built-in callback that listens to batches adds to a training step.

The training is that of overhead.py: MLP 32→64→2, batches of 8 in a list, one thread. A row is the
median over the rounds of a fit with the callback, less the bare fit of the same round. The last row
has all of them at once, with self.log and all defaults, above the hand-written loop.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable
from typing import Any

import _table
import overhead
from renshu import Callback, Module, Trainer, callbacks

EACH: dict[str, Callable[[], Callback]] = {
    "Timer": lambda: callbacks.Timer("01:00:00:00"),
    "LambdaCallback": lambda: callbacks.LambdaCallback(on_train_batch_end=lambda *_: None),
    "GradientAccumulationScheduler": lambda: callbacks.GradientAccumulationScheduler({0: 1}),
    "ThroughputMonitor": lambda: callbacks.ThroughputMonitor(lambda batch: len(batch[0])),
    "SpikeDetection": callbacks.SpikeDetection,
    "ProgressBar": callbacks.ProgressBar,
    "EMA": callbacks.EMA,
    "WeightAveraging": callbacks.WeightAveraging,
}
"""EMA and WeightAveraging do arithmetic on every weight in each step: that is what they are for."""

ARITHMETIC = ("EMA", "WeightAveraging")


def fit(steps: int, given: list[Callback], defaults: bool = False) -> float:
    """Seconds of the one epoch of a fit."""
    data = overhead.batches("list", steps)
    module = overhead.module_of(Module, logs=True)
    quiet: dict[str, Any] = {} if defaults else overhead.QUIET
    with tempfile.TemporaryDirectory() as folder, overhead.terminal():
        trainer = Trainer(
            accelerator="cpu", max_epochs=1, default_root_dir=folder, callbacks=given, **quiet
        )
        trainer.fit(module, data)
    return module.ended - module.started


def measure(quick: bool) -> Iterable[_table.Row]:
    """A row a callback, then all that do no arithmetic of their own together."""
    overhead.quieten()
    steps, rounds = (300, 2) if quick else (overhead.STEPS, 7)
    fit(steps, [])
    bare: list[float] = []
    above: dict[str, list[float]] = {name: [] for name in EACH}
    together: list[float] = []
    for _ in range(rounds):
        bare.append(fit(steps, []))
        for name, make in EACH.items():
            above[name].append((fit(steps, [make()]) - bare[-1]) / steps * 1e6)
        hand = overhead.by_hand(overhead.batches("list", steps), 1)
        light = [make() for name, make in EACH.items() if name not in ARITHMETIC]
        together.append((fit(steps, light, defaults=True) - hand) / steps * 1e6)
    for name, found in above.items():
        yield _table.Row(
            f"time a step that {name} adds",
            "µs",
            renshu=statistics.median(found),
            spread=f"{min(found):.1f} to {max(found):.1f}",
        )
    yield _table.Row(
        "time a step above the hand-written loop, self.log, all defaults and all of these but"
        " EMA and WeightAveraging",
        "µs",
        renshu=statistics.median(together),
        reach="<= 70",
        spread=f"{min(together):.1f} to {max(together):.1f}",
    )


if __name__ == "__main__":
    _table.main(__file__, measure)
