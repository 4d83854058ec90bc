"""Matrix profile: the distance of a window to its nearest neighbour.

Yeh et al. 2016, Matrix Profile I: All Pairs Similarity Joins for Time Series; equal to stumpy's
(Law 2019). Similarities are products of matrices, which needs no compiler: stumpy's first call
compiles for a minute or more in every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.detector import BLOCK_BYTES, Scores, align
from renshu_tasks.anomaly.detectors.sub_knn import SubKNN
from renshu_tasks.anomaly.series import Values


@dataclass
class MatrixProfile(SubKNN):
    """Distance of a z-normalised window (ddof 0) to its k-th nearest in the training part.

    `fit_score` is the classical self-join: neighbours are the series' own windows but for those
    that begin within a quarter of w.

    Args:
        neighbours: k. Above 1, an anomaly that occurs twice does not hide itself.
    """

    name: ClassVar[str] = "matrix_profile"
    source: ClassVar[str] = "Yeh et al. 2016; Law 2019 (stumpy)"
    cost: ClassVar[str] = "T N w"
    multivariate: ClassVar[bool] = False

    neighbours: int = 1

    def __post_init__(self) -> None:
        if self.window < 3 or self.neighbours < 1:
            raise ConfigError(
                f"window {self.window}, neighbours {self.neighbours}",
                where="detector matrix_profile",
                allowed="a window of 3 or more, 1 or more neighbours",
            )

    def fit_score(self, values: Values) -> Scores:
        """The self-join, in blocks of rows: memory grows with T alone."""
        self.fit(values)
        known, zone = self._known, -(-self.window // 4)
        if len(known) <= 2 * zone + self.neighbours:
            raise DataError(
                f"{len(values)} points have too few windows that do not overlap",
                allowed=f"{self.window + 2 * zone + self.neighbours} or more for matrix_profile",
                mend="a smaller --model.window",
            )
        rows = max(1, BLOCK_BYTES // (8 * len(known)))
        starts = range(0, len(known), rows)
        scores = np.concatenate([self._joined(start, start + rows, zone) for start in starts])
        return self._sound(align(scores, self.window, False), len(values))

    def _joined(self, start: int, stop: int, zone: int) -> Scores:
        asked = self._known[start:stop]
        likeness = self._likeness(asked)
        for row in range(len(asked)):
            place = start + row
            likeness[row, max(0, place - zone) : place + zone + 1] = -np.inf
        return self._distance(asked, np.argpartition(-likeness, self.neighbours - 1))

    def _likeness(self, asked: NDArray[np.float64]) -> NDArray[np.float64]:
        """-|a - b|² / 2 up to a constant of the row, [N, M]. A constant window is all 0."""
        return asked @ self._known.T - (self._known**2).sum(axis=1) / 2

    def _distance(self, asked: NDArray[np.float64], places: NDArray[np.int64]) -> Scores:
        ddof = np.sqrt(self.window / (self.window - 1))
        return ddof * super()._distance(asked, places[:, : self.neighbours])
