"""Matrix profile: the distance of a window to its nearest neighbour, by stumpy.

Yeh et al. 2016, Matrix Profile I; Law 2019, STUMPY.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu.errors import ConfigError
from renshu_tasks.anomaly.detector import Scores, WindowDetector, align, windows_of
from renshu_tasks.anomaly.scaling import z_normalise
from renshu_tasks.anomaly.series import Values


@dataclass
class MatrixProfile(WindowDetector):
    """Distance of a z-normalised window to its k-th nearest in the training part.

    `fit_score` takes the series' own windows, without those that overlap by more than 3/4 of w:
    the classical self-join. stumpy finds the neighbours; distances are computed from the windows,
    so that a stream gives the same.

    Args:
        neighbours: k. Above 1, an anomaly that occurs twice does not hide itself.
    """

    name: ClassVar[str] = "matrix_profile"
    source: ClassVar[str] = "Yeh et al. 2016; Law 2019 (stumpy)"
    cost: ClassVar[str] = "T N"
    multivariate: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ("train",)

    neighbours: int = 1

    def __post_init__(self) -> None:
        if self.window < 3 or self.neighbours < 1:
            raise ConfigError(
                f"window {self.window}, neighbours {self.neighbours}",
                where="detector matrix_profile",
                allowed="a window of 3 or more, 1 or more neighbours",
            )

    def _fit(self, train: Values) -> None:
        self.train = train
        super()._fit(train)

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._fit(arrays["train"])

    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        self._known = z_normalise(windows, 1)

    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        """Blocks of windows; consecutive ones, as `_score` gives them, are one series again."""
        import stumpy

        values = np.concatenate([windows[0], windows[1:, -1]])
        count = min(self.neighbours, len(self._known))
        if len(windows) == 1:  # stump needs more; MASS is the same for one query
            profile = stumpy.mass(values, self.train[:, 0])
            places = np.argsort(profile, kind="stable")[None, :count].astype(np.int64)
        else:
            found = stumpy.stump(
                values, self.window, self.train[:, 0], ignore_trivial=False, k=count
            )
            places = found[:, count : 2 * count].astype(np.int64)
        return self._distance(z_normalise(windows, 1), places)

    def fit_score(self, values: Values) -> Scores:
        """The self-join: a window's neighbour is another window of the same series."""
        import stumpy

        self.fit(values)
        count = max(1, min(self.neighbours, len(self._known) - self.window))
        found = stumpy.stump(values[:, 0], self.window, k=count)
        places = found[:, count : 2 * count].astype(np.int64)
        windows = z_normalise(windows_of(values, self.window), 1)
        return self._sound(align(self._distance(windows, places), self.window, False), len(values))

    def _distance(self, asked: NDArray[np.float64], places: NDArray[np.int64]) -> Scores:
        """To the last neighbour; none (-1: a series of one window) counts as 0."""
        last = places[:, -1]
        distance = np.sqrt(((asked - self._known[last]) ** 2).sum(axis=1))
        return np.where(last < 0, 0.0, distance)
