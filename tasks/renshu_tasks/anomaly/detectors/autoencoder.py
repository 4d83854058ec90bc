"""Convolutional autoencoder: what it cannot reconstruct of a window is the score.

Zhang et al. 2019, A Deep Neural Network for Unsupervised Anomaly Detection and Diagnosis in
Multivariate Time Series Data, use convolutions so; Sakurada and Yairi 2014 the error as a score.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from renshu_tasks.anomaly.detectors.reconstruct import ReconstructionDetector
from renshu_tasks.anomaly.learner import Network


class ConvAutoencoder(Network):
    """Two strided convolutions down, two transposed ones up.

    Args:
        channels: C.
        width: feature maps.
        code: feature maps of the narrowest layer.
    """

    def __init__(self, channels: int, width: int = 32, code: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv1d(channels, width, 7, stride=2, padding=3),
            nn.ReLU(),
            nn.Conv1d(width, code, 7, stride=2, padding=3),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose1d(code, width, 8, stride=2, padding=3),
            nn.ReLU(),
            nn.ConvTranspose1d(width, channels, 8, stride=2, padding=3),
        )

    def forward(self, window: Tensor) -> Tensor:
        """[B, C, w] → its reconstruction [B, C, w]; w is padded to a multiple of 4 inside."""
        length = window.shape[2]
        padded = F.pad(window, (0, -length % 4), mode="replicate")
        return self.decoder(self.encoder(padded))[:, :, :length]

    def errors(self, window: Tensor) -> Tensor:
        """[B, C, w] → mean squared error of each channel [B, C]."""
        return ((self(window) - window) ** 2).mean(dim=2)


@dataclass
class Autoencoder(ReconstructionDetector):
    """Squared error of the reconstruction, a mean over time and a sum over channels.

    Args:
        width: feature maps.
        code: feature maps of the narrowest layer, a quarter as long as the window.
    """

    name: ClassVar[str] = "autoencoder"
    source: ClassVar[str] = "Sakurada and Yairi 2014; Zhang et al. 2019"
    cost: ClassVar[str] = "epochs N w width code"
    smallest_window: ClassVar[int] = 8

    width: int = 32
    code: int = 4

    def make_network(self) -> Network:
        return ConvAutoencoder(self.channels, self.width, self.code)
