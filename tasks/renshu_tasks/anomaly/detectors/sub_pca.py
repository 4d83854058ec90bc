"""Sub-PCA: distances of windows to principal directions, those of little variance weighing most.

Aggarwal 2017, Outlier Analysis, chapter 3, after Shyu et al. 2003; as TSB-AD 1.5 and PyOD have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.detector import Scores, WindowDetector
from renshu_tasks.anomaly.scaling import moments


@dataclass
class SubPCA(WindowDetector):
    """Σ over components e of |x - e| / (share of the variance along e), x a standardised window.

    Args:
        components: how many are kept, the largest first; 0: all.
    """

    name: ClassVar[str] = "sub_pca"
    source: ClassVar[str] = "Aggarwal 2017, Outlier Analysis, chapter 3"
    cost: ClassVar[str] = "fit N (w C)² , score T (w C)²"
    learned: ClassVar[tuple[str, ...]] = ("mean", "scale", "axes", "shares")

    components: int = 0

    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        from sklearn.decomposition import PCA

        self.mean, self.scale = moments(windows)
        standardised = (windows - self.mean) / self.scale
        if not standardised.any():  # a constant training part has no direction
            self.axes, self.shares = np.zeros((1, windows.shape[1])), np.ones(1)
            return
        found = PCA(self.components or None, svd_solver="full").fit(standardised)
        self.axes = found.components_
        self.shares = np.maximum(found.explained_variance_ratio_, np.finfo(float).tiny)

    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        from scipy.spatial.distance import cdist

        return (cdist((windows - self.mean) / self.scale, self.axes) / self.shares).sum(axis=1)
