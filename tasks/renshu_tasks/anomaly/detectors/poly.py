"""POLY: a polynomial through the neighbourhood predicts a block; its error is the score.

Li, Ma and Mei 2007, A Unifying Method for Outlier and Change Detection from Data Streams Based on
Local Polynomial Fitting; the block form as in TSB-AD 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from renshu.errors import ConfigError
from renshu_tasks.anomaly.detector import Detector, Scores
from renshu_tasks.anomaly.scaling import deviation
from renshu_tasks.anomaly.series import Values


@dataclass
class Poly(Detector):
    """Root mean square error of a polynomial that has not seen the points it is held against.

    Blocks of `window` points, each against a polynomial through the 10 windows around it. Causal:
    the error of a point against one through the 10 windows before it. The blocks of the first
    tenth (at most 500 points), which lack a past, have 0.

    Args:
        window: w, in points.
        power: degree of the polynomial.
    """

    name: ClassVar[str] = "poly"
    source: ClassVar[str] = "Li, Ma and Mei 2007"
    cost: ClassVar[str] = "T power²"
    multivariate: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ("scale",)

    window: int = 100
    power: int = 3

    def __post_init__(self) -> None:
        if self.window < 1 or not 0 <= self.power <= 10:
            raise ConfigError(
                f"window {self.window}, power {self.power}",
                where="detector poly",
                allowed="a window of 1 or more, a power from 0 to 10",
            )

    @property
    def neighbourhood(self) -> int:
        """Points that a polynomial is fitted to."""
        return max(10 * self.window, 100)

    @property
    def memory(self) -> int:
        return self.neighbourhood + 1

    @property
    def shortest(self) -> int:
        return 2 * self.window + self.power + 1

    def _fit(self, train: Values) -> None:
        self.scale = deviation(train)

    def _score(self, values: Values, causal: bool) -> Scores:
        x = values[:, 0] / self.scale[0]
        return self._last_points(x) if causal else self._blocks(x)

    def _last_points(self, x: Scores) -> Scores:
        """A fit on a fixed grid and its next value are one linear filter."""
        length = self.neighbourhood
        scores = np.zeros(len(x))
        if len(x) > length:
            grid = np.linspace(-1, 1, length)
            design, after = (np.vander(g, self.power + 1) for g in (grid, [1 + 2 / (length - 1)]))
            weights = (after @ np.linalg.pinv(design))[0]
            expected = sliding_window_view(x, length)[:-1] @ weights
            scores[length:] = np.abs(x[length:] - expected)
        return scores

    def _blocks(self, x: Scores) -> Scores:
        scores = np.zeros(len(x))
        length = min(self.neighbourhood, len(x))
        skipped = -(-min(500, len(x) // 10) // self.window)
        for start in range(skipped * self.window, len(x), self.window):
            stop = min(start + self.window, len(x))
            first = int(np.clip(start - length // 2, 0, len(x) - length))
            places = np.arange(first, first + length)
            others = places[(places < start) | (places >= stop)]
            fitted = np.polynomial.Polynomial.fit(others, x[others], self.power)
            error = x[start:stop] - fitted(np.arange(start, stop))
            scores[start:stop] = np.sqrt((error**2).mean())
        return scores
