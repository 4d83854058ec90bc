"""CNN: convolutions forecast the next point; the error is the score.

Munir et al. 2018, DeepAnT: A Deep Learning Approach for Unsupervised Anomaly Detection in Time
Series; layers and training as in TSB-AD 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from renshu_tasks.anomaly.detectors.forecast import ForecastDetector, Forecaster


class ConvForecaster(Forecaster):
    """Two convolutions with pooling, then a mean over time and two linear layers.

    Args:
        channels: C.
        width: feature maps; the last layers have a quarter more.
    """

    def __init__(self, channels: int, width: int = 32) -> None:
        super().__init__()
        wide = width * 5 // 4
        self.features = nn.Sequential(
            nn.Conv1d(channels, width, 3),
            nn.MaxPool1d(2),  # before the ReLU: the same values, half as many of them
            nn.ReLU(),
            nn.Conv1d(width, wide, 3),
            nn.MaxPool1d(2),
            nn.ReLU(),
        )
        self.head = nn.Sequential(
            nn.Linear(2 * wide, wide), nn.ReLU(), nn.Dropout(0.25), nn.Linear(wide, channels)
        )

    def forward(self, past: Tensor) -> Tensor:
        """[B, C, w] → the next point [B, C]."""
        features = self.features(past)
        return self.head(torch.cat([features.mean(dim=2), features.amax(dim=2)], dim=1))


@dataclass
class CNN(ForecastDetector):
    """Squared error of the forecast, summed over channels.

    Args:
        width: feature maps of the first convolution.
    """

    name: ClassVar[str] = "cnn"
    source: ClassVar[str] = "Munir et al. 2018, DeepAnT"
    cost: ClassVar[str] = "epochs N w C width"
    smallest_window: ClassVar[int] = 10

    width: int = 32

    def make_network(self) -> Forecaster:
        return ConvForecaster(self.channels, self.width)
