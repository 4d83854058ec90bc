"""A trained detector over a stream: a verdict a point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from renshu.errors import CheckpointError
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
