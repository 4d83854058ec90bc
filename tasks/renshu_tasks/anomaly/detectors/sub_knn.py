"""Sub-KNN: the distance of a window to its k-th nearest training window.

Ramaswamy, Rastogi and Shim 2000, Efficient Algorithms for Mining Outliers from Large Data Sets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.detector import Scores, WindowDetector, align, windows_of
from renshu_tasks.anomaly.scaling import z_normalise
from renshu_tasks.anomaly.series import Values


@dataclass
class SubKNN(WindowDetector):
    """Euclidean distance of z-normalised windows to the k-th neighbour.

    Args:
        neighbours: k. Above 1, anomalies that occur twice do not hide each other.
    """

    name: ClassVar[str] = "sub_knn"
    source: ClassVar[str] = "Ramaswamy, Rastogi and Shim 2000"
    cost: ClassVar[str] = "T N w C"
    learned: ClassVar[tuple[str, ...]] = ("train",)

    neighbours: int = 10

    def _fit(self, train: Values) -> None:
        self.train = train
        super()._fit(train)

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._fit(arrays["train"])

    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        from sklearn.neighbors import NearestNeighbors

        self._known = z_normalise(windows, self.channels)
        self._count = min(self.neighbours, len(windows))
        self._index = NearestNeighbors(n_neighbors=self._count).fit(self._known)

    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        asked = z_normalise(windows, self.channels)
        return self._distance(asked, self._index.kneighbors(asked, return_distance=False))

    def fit_score(self, values: Values) -> Scores:
        """No window is a neighbour of itself, as in TSB-AD."""
        self.fit(values)
        asked = z_normalise(windows_of(values, self.window), self.channels)
        count = max(1, min(self.neighbours, len(asked) - 1))
        places = self._index.kneighbors(n_neighbors=count, return_distance=False)
        return self._sound(align(self._distance(asked, places), self.window, False), len(values))

    def _distance(self, asked: NDArray[np.float64], places: NDArray[np.int64]) -> Scores:
        """To the last of the neighbours found, from the windows themselves.

        The index computes |a|² + |b|² - 2ab, which near 0 depends on how many are asked at once.
        """
        return np.sqrt(((asked - self._known[places[:, -1]]) ** 2).sum(axis=1))
