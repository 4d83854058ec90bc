"""A trained detector over a stream: a verdict a point, and the replay of a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from renshu.errors import CheckpointError
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.thresholds import Decision, Verdict

if TYPE_CHECKING:
    from renshu_tasks.anomaly.module import AnomalyDetector


class Online:
    """Score, p-value, threshold and alarm of one point after another.

    Scores are those of `detector.score(…, causal=True)`: to 1e-9 of classical detectors, to 1e-5
    relative of networks. What it keeps is bounded by `detector.memory` points, and for spot the
    excesses. Before `detector.memory` points have come nothing is decided and nothing learned:
    the score is 0, and zeros are no scores of normal points.
    """

    def __init__(self, module: AnomalyDetector) -> None:
        self._stream = module.detector.stream()
        self._decider = decision_of(module).decider()
        self._undecided = module.detector.memory - 1  # points still to come before the first score

    def update(self, x: ArrayLike) -> Verdict:
        """One point, a number or float64 [C]."""
        return self.extend(np.asarray(x, dtype=np.float64).reshape(1, -1))[0]

    def extend(self, points: np.ndarray) -> list[Verdict]:
        """The next points, float64 [N, C]: the same verdicts, many at once."""
        scores = self._stream.extend(points)
        early = min(self._undecided, len(scores))
        self._undecided -= early
        verdicts = [self._decider.undecided() for _ in range(early)]
        return verdicts + [self._decider.update(score) for score in scores[early:].tolist()]


def decision_of(module: AnomalyDetector) -> Decision:
    """The decision stored with the model. Raises CheckpointError for a run that has none yet."""
    if module.decision is None:
        raise CheckpointError(
            "the model has no threshold yet: its run is not finished",
            mend="--ckpt_path best, when the run is finished",
        )
    return module.decision


@dataclass(frozen=True)
class Replayed:
    """One point of a replay.

    Attributes:
        row: number of the point, from 0.
        verdict: what was decided.
        seconds: from the point's arrival to its verdict.
    """

    row: int
    verdict: Verdict
    seconds: float


def replay(
    module: AnomalyDetector,
    path: str | Path,
    options: DataOptions | None = None,
    speed: float | None = None,
) -> Iterator[Replayed]:
    """A file as if its points arrived now: `speed` times as fast as they were taken, or at once.

    Args:
        module: trained.
        path: any file that `read_series` reads.
        options: how.
        speed: 60 makes a minute a second; None waits for nothing.
    """
    from renshu_tasks.anomaly.readers import read_series

    series, online = read_series(path, options), Online(module)
    start = time.perf_counter()
    for row, x in enumerate(series.values):
        if speed is not None:
            due = start + row * series.period / speed
            time.sleep(max(0.0, due - time.perf_counter()))
        arrived = time.perf_counter()
        verdict = online.update(x)
        yield Replayed(row, verdict, time.perf_counter() - arrived)


def latencies(seconds: list[float]) -> dict[str, float]:
    """Milliseconds a point: the median, the 99th percentile and the longest."""
    found = np.array(seconds) * 1e3
    middle, high = np.quantile(found, [0.5, 0.99])
    return {"median_ms": float(middle), "p99_ms": float(high), "max_ms": float(found.max())}
