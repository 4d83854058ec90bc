"""The part of a window that the leading principal components do not explain (Q statistic).

Jackson and Mudholkar 1979, Control Procedures for Residuals Associated With Principal Component
Analysis, Technometrics 21.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu.errors import ConfigError
from renshu_tasks.anomaly.detector import Scores, WindowDetector, align, window_blocks
from renshu_tasks.anomaly.scaling import deviation, moments
from renshu_tasks.anomaly.series import Values


@dataclass
class ResidualPCA(WindowDetector):
    """Squared distance of a window from the span of the leading components.

    Channels are scaled by their training deviation.

    Args:
        explained: share of the training windows' variance that the components hold.
    """

    name: ClassVar[str] = "residual_pca"
    source: ClassVar[str] = "Jackson and Mudholkar 1979"
    cost: ClassVar[str] = "fit N (w C)², score T w C components"
    additive: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("mean", "scale", "axes")

    explained: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.explained < 1:
            raise ConfigError(
                f"{self.explained} is out of range", where="explained", allowed="between 0 and 1"
            )

    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        from sklearn.decomposition import PCA

        shaped = windows.reshape(-1, self.channels)
        self.scale = np.tile(deviation(shaped), self.window)
        self.mean = moments(windows)[0]
        scaled = (windows - self.mean) / self.scale
        if not scaled.any():  # a constant training part: nothing is explained
            self.axes = np.zeros((1, windows.shape[1]))
            return
        self.axes = PCA(self.explained, svd_solver="full").fit(scaled).components_

    def _residuals(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Windows → squared residuals [N, C], summed over the points of each channel."""
        scaled = (windows - self.mean) / self.scale
        rest = scaled - (scaled @ self.axes.T) @ self.axes
        return (rest**2).reshape(len(windows), self.window, self.channels).sum(axis=1)

    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        return self._residuals(windows).sum(axis=1)

    def _contributions(self, values: Values, causal: bool) -> NDArray[np.float64]:
        blocks = [self._residuals(block) for block in window_blocks(values, self.window)]
        return align(np.concatenate(blocks), self.window, causal)
