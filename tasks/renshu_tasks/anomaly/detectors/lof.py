"""Local outlier factor of windows: how thin it is around one, against its neighbours.

Breunig, Kriegel, Ng and Sander 2000, LOF: Identifying Density-Based Local Outliers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.detector import Scores, align
from renshu_tasks.anomaly.detectors.refitted import RefittedDetector
from renshu_tasks.anomaly.scaling import moments
from renshu_tasks.anomaly.series import Values


@dataclass
class LOF(RefittedDetector):
    """The factor of a standardised window against the training windows; about 1 is normal.

    Args:
        neighbours: k.
    """

    name: ClassVar[str] = "lof"
    source: ClassVar[str] = "Breunig, Kriegel, Ng and Sander 2000"
    cost: ClassVar[str] = "T N w C"

    neighbours: int = 30

    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        from sklearn.neighbors import LocalOutlierFactor

        self._mean, self._scale = moments(windows)
        count = max(1, min(self.neighbours, len(windows) - 1))
        self._factor = LocalOutlierFactor(count, novelty=True)
        with warnings.catch_warnings():  # equal windows are normal in a periodic series
            warnings.filterwarnings("ignore", "Duplicate values", UserWarning)
            self._factor.fit((windows - self._mean) / self._scale)

    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        return -self._factor.score_samples((windows - self._mean) / self._scale)

    def fit_score(self, values: Values) -> Scores:
        """No window is a neighbour of itself, as in TSB-AD."""
        self.fit(values)
        own = -self._factor.negative_outlier_factor_
        return self._sound(align(own, self.window, False), len(values))
