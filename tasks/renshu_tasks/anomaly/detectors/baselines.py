"""Four trivial detectors that every table needs: what does not beat them has learned nothing.

Wu and Keogh, Current Time Series Anomaly Detection Benchmarks are Flawed and are Creating the
Illusion of Progress, IEEE TKDE 2021: much of the public data is solved by such a line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from renshu.errors import ConfigError
from renshu_tasks.anomaly.detector import Detector, Scores, Stream
from renshu_tasks.anomaly.scaling import deviation
from renshu_tasks.anomaly.series import Values

_SOURCE = "Wu and Keogh 2021"


@dataclass
class Random(Detector):
    """Uniform numbers in [0, 1), the same for the same seed and length."""

    name: ClassVar[str] = "random"
    source: ClassVar[str] = _SOURCE
    cost: ClassVar[str] = "T"
    trivial: ClassVar[bool] = True

    seed: int = 0

    def _fit(self, train: Values) -> None: ...

    def _score(self, values: Values, causal: bool) -> Scores:
        return np.random.default_rng(self.seed).random(len(values))

    def stream(self) -> Stream:
        self._fitted(None)
        return _RandomStream(self)


class _RandomStream(Stream):
    """The generator goes on from point to point."""

    def __init__(self, detector: Random) -> None:
        super().__init__(detector)
        self._generator = np.random.default_rng(detector.seed)

    def extend(self, points: Values) -> Scores:
        return self._generator.random(len(points))


@dataclass
class Constant(Detector):
    """The same score for every point."""

    name: ClassVar[str] = "constant"
    source: ClassVar[str] = _SOURCE
    cost: ClassVar[str] = "T"
    trivial: ClassVar[bool] = True

    def _fit(self, train: Values) -> None: ...

    def _score(self, values: Values, causal: bool) -> Scores:
        return np.zeros(len(values))


@dataclass
class Difference(Detector):
    """Σ over channels of |x_t - x_(t-1)|, in standard deviations of the training differences."""

    name: ClassVar[str] = "difference"
    source: ClassVar[str] = _SOURCE
    cost: ClassVar[str] = "T C"
    trivial: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("scale",)

    @property
    def memory(self) -> int:
        return 2

    def _fit(self, train: Values) -> None:
        self.scale = deviation(np.diff(train, axis=0))

    def _contributions(self, values: Values, causal: bool) -> NDArray[np.float64]:
        steps = np.abs(np.diff(values, axis=0)) / self.scale
        return np.pad(steps, [(1, 0), (0, 0)])

    def _score(self, values: Values, causal: bool) -> Scores:
        return self._contributions(values, causal).sum(axis=1)


@dataclass
class MovingZScore(Detector):
    """Σ over channels of |x_t - mean| / deviation, both of the `window` points before t.

    A deviation below a hundredth of the training part's counts as that: a flat stretch does not
    make the smallest step infinitely unlikely.
    """

    name: ClassVar[str] = "zscore"
    source: ClassVar[str] = "Shewhart 1931, Economic Control of Quality of Manufactured Product"
    cost: ClassVar[str] = "T w C"
    trivial: ClassVar[bool] = True
    additive: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("floor",)

    window: int = 100

    def __post_init__(self) -> None:
        if self.window < 2:
            raise ConfigError(f"{self.window} is out of range", where="window", allowed="2 or more")

    @property
    def memory(self) -> int:
        return self.window + 1

    def _fit(self, train: Values) -> None:
        self.floor = 0.01 * deviation(train)

    def _contributions(self, values: Values, causal: bool) -> NDArray[np.float64]:
        found = np.zeros(values.shape)
        before = sliding_window_view(values[:-1], self.window, axis=0)
        for start in range(0, len(before), 4096):  # the deviation needs a copy of its windows
            some = before[start : start + 4096]
            rows = slice(self.window + start, self.window + start + len(some))
            distance = np.abs(values[rows] - some.mean(axis=2))
            found[rows] = distance / np.maximum(some.std(axis=2), self.floor)
        return found

    def _score(self, values: Values, causal: bool) -> Scores:
        return self._contributions(values, causal).sum(axis=1)
