"""LSTM: an encoder reads the window, a decoder forecasts the next point; the error is the score.

Malhotra et al. 2015, Long Short Term Memory Networks for Anomaly Detection in Time Series; layers
and training as in TSB-AD 1.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from renshu_tasks.anomaly.detectors.forecast import ForecastDetector, Forecaster


class LSTMForecaster(Forecaster):
    """Two LSTMs of two layers, the second started by the first's last state.

    Args:
        channels: C.
        hidden: size of the state.
    """

    def __init__(self, channels: int, hidden: int = 20) -> None:
        super().__init__()
        self.encoder = nn.LSTM(channels, hidden, num_layers=2, batch_first=True)
        self.decoder = nn.LSTM(channels, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, channels)

    def forward(self, past: Tensor) -> Tensor:
        """[B, C, w] → the next point [B, C]."""
        _, state = self.encoder(past.transpose(1, 2))
        output, _ = self.decoder(past.new_zeros(len(past), 1, past.shape[1]), state)
        return self.head(F.gelu(output[:, 0]))


@dataclass
class LSTM(ForecastDetector):
    """Squared error of the forecast, summed over channels.

    Args:
        hidden: size of the LSTM's state.
    """

    name: ClassVar[str] = "lstm"
    source: ClassVar[str] = "Malhotra et al. 2015"
    cost: ClassVar[str] = "epochs N w hidden²"

    hidden: int = 20

    def make_network(self) -> Forecaster:
        return LSTMForecaster(self.channels, self.hidden)
