"""Score, then learn: a detector that is fitted again as a series goes on.

Gama, Sebastião and Rodrigues 2013, On evaluating stream learning algorithms, Machine Learning 90.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from renshu.errors import ConfigError
from renshu_tasks.anomaly.detector import Detector, Scores
from renshu_tasks.anomaly.series import Values


def prequential(
    make_one: Callable[[], Detector], values: Values, train_end: int, every: int
) -> Scores:
    """Causal scores of what lies behind the training part, float64 [T - train_end].

    Each block of `every` points is scored before any of it is learned from; then a new detector is
    fitted on the newest `train_end` points. Nothing here takes labels: what was anomalous is
    learned from as well.

    Args:
        make_one: gives a detector that is not fitted.
        values: float64 [T, C].
        train_end: points of every fit.
        every: points between two fits.

    Raises ConfigError for a block without points, DataError for what the detector refuses.
    """
    if every < 1:
        raise ConfigError(f"{every} points between two fits", where="retrain", allowed="1 or more")
    found = []
    for start in range(train_end, len(values), every):
        detector = make_one().fit(values[start - train_end : start])
        stop = min(start + every, len(values))
        first = max(0, min(start - detector.memory + 1, stop - detector.shortest))
        scores = detector.score(values[first:stop], causal=True)
        found.append(scores[start - first :])
    return np.concatenate(found)
