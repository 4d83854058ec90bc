"""KMeansAD: the distance of a window to the nearest centre of the training windows.

Yairi, Kato and Hori 2001, Fault Detection by Mining Association Rules from House-keeping Data; the
point scores as in TimeEval and TSB-AD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.detector import Scores, WindowDetector, align, window_blocks
from renshu_tasks.anomaly.scaling import z_normalise
from renshu_tasks.anomaly.series import Values


@dataclass
class KMeansAD(WindowDetector):
    """Euclidean distance of z-normalised windows to their centre.

    A point has the mean of all windows that cover it; causal, that of the window it ends.

    Args:
        clusters: k; never more than there are training windows.
        seed: of the first centres.
    """

    name: ClassVar[str] = "kmeans"
    source: ClassVar[str] = "Yairi, Kato and Hori 2001"
    cost: ClassVar[str] = "fit N w C k iterations, score T w C k"
    learned: ClassVar[tuple[str, ...]] = ("centres",)

    window: int = 20
    clusters: int = 20
    seed: int = 0

    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        from sklearn.cluster import KMeans

        known = z_normalise(windows, self.channels)
        count = min(self.clusters, len(np.unique(known, axis=0)))
        found = KMeans(count, random_state=self.seed, n_init=1).fit(known)
        self.centres = found.cluster_centers_

    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        asked = z_normalise(windows, self.channels)
        squares = (self.centres**2).sum(axis=1)
        nearest = (squares - 2 * asked @ self.centres.T).argmin(axis=1)
        return np.sqrt(((asked - self.centres[nearest]) ** 2).sum(axis=1))

    def _score(self, values: Values, causal: bool) -> Scores:
        scores = np.concatenate(
            [self.score_windows(block) for block in window_blocks(values, self.window)]
        )
        if causal:
            return align(scores, self.window, causal)
        covering = np.convolve(np.ones(len(scores)), np.ones(self.window))
        return np.maximum(np.convolve(scores, np.ones(self.window)) / covering, 0.0)
