"""Isolation forest over windows: what few random cuts set apart is anomalous.

Liu, Ting and Zhou 2008, Isolation Forest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.detector import Scores
from renshu_tasks.anomaly.detectors.refitted import RefittedDetector
from renshu_tasks.anomaly.scaling import moments

_FARTHEST = 1e30
"""Trees compare in float32; a deviation beyond counts as that."""


@dataclass
class IForest(RefittedDetector):
    """The paper's score 2^(-depth / c), in (0, 1], of standardised windows.

    Args:
        trees: how many.
        features: points of the window that each tree sees; 1 as in TSB-AD, 0: all.
        seed: of the trees.
    """

    name: ClassVar[str] = "iforest"
    source: ClassVar[str] = "Liu, Ting and Zhou 2008"
    cost: ClassVar[str] = "T trees log 256"

    trees: int = 100
    features: int = 1
    seed: int = 0

    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        from sklearn.ensemble import IsolationForest

        self._mean, self._scale = moments(windows)
        self._forest = IsolationForest(
            n_estimators=self.trees,
            max_features=min(self.features, windows.shape[1]) or 1.0,
            random_state=self.seed,
        )
        self._forest.fit(self._standardised(windows))

    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        return -self._forest.score_samples(self._standardised(windows))

    def _standardised(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip((windows - self._mean) / self._scale, -_FARTHEST, _FARTHEST)
