"""Detectors that forecast the next point from a window: the error is that point's score."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from renshu_tasks.anomaly.detectors.neural import NeuralDetector
from renshu_tasks.anomaly.learner import Network


class Forecaster(Network):
    """A network that is given all points of a window but the last, which it forecasts."""

    @abstractmethod
    def forward(self, past: Tensor) -> Tensor:
        """[B, C, w] → the next point [B, C]."""

    def errors(self, window: Tensor) -> Tensor:
        """[B, C, w + 1] → squared error of the last point [B, C]."""
        return (self(window[:, :, :-1]) - window[:, :, -1]) ** 2


@dataclass
class ForecastDetector(NeuralDetector):
    """The score belongs to the point that was forecast, causal or not; the first w have 0."""

    @property
    def memory(self) -> int:
        return self.window + 1

    def place(self, errors: NDArray[np.float64], causal: bool) -> NDArray[np.float64]:
        return np.pad(errors, [(self.window, 0), (0, 0)])
