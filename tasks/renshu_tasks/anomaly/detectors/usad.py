"""USAD: two autoencoders with one encoder, trained against each other.

Audibert et al. 2020, USAD: UnSupervised Anomaly Detection on Multivariate Time Series, KDD. TSB-AD
1.5 adds the two losses, which cancels the adversarial part; here each has its own optimiser, as in
the paper's algorithm 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from renshu_tasks.anomaly.detectors.reconstruct import ReconstructionDetector
from renshu_tasks.anomaly.learner import AdversarialNetwork, Network
from renshu_tasks.anomaly.series import Values


class TwoAutoencoders(AdversarialNetwork):
    """One encoder, two decoders, of linear layers.

    Args:
        channels: C.
        window: w.
        hidden: size of the layers.
        latent: size of the code.
    """

    def __init__(self, channels: int, window: int, hidden: int = 16, latent: int = 5) -> None:
        super().__init__()
        size = channels * window
        self.encoder = nn.Sequential(
            nn.Linear(size, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, latent),
            nn.ReLU(),
        )
        self.decoders = nn.ModuleList(_decoder(latent, hidden, size) for _ in range(2))

    def _three(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, C, w] → squared errors of W1', W2' and W'', the paper's names, [B, C, w] each."""
        flat = window.flatten(1)
        first, second = self.decoders
        code = self.encoder(flat)
        once = first(code)
        outputs = once, second(code), second(self.encoder(once))
        one, two, three = (((out - flat) ** 2).view_as(window) for out in outputs)
        return one, two, three

    def losses(self, window: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """The two players' losses at an epoch counted from 0 (equations 8 and 9)."""
        one, two, three = (error.mean() for error in self._three(window))
        share = 1 / (epoch + 1)
        return share * one + (1 - share) * three, share * two - (1 - share) * three

    def players(self) -> Iterator[Iterator[nn.Parameter]]:
        """The parameters that each loss moves: the encoder and its own decoder."""
        for decoder in self.decoders:
            yield chain(self.encoder.parameters(), decoder.parameters())

    def errors(self, window: Tensor) -> Tensor:
        """[B, C, w] → 0.1 |W - W1'|² + 0.9 |W - W''|², a mean over time, [B, C]."""
        one, _, three = self._three(window)
        return (0.1 * one + 0.9 * three).mean(dim=2)


def _decoder(latent: int, hidden: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(latent, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, size),
        nn.Sigmoid(),
    )


@dataclass
class USAD(ReconstructionDetector):
    """α |W - AE1(W)|² + β |W - AE2(AE1(W))|² with α 0.1, β 0.9; values scaled to [0, 1] first.

    Args:
        hidden: size of the layers.
        latent: size of the code.
    """

    name: ClassVar[str] = "usad"
    source: ClassVar[str] = "Audibert et al. 2020"
    cost: ClassVar[str] = "epochs N w C hidden"

    window: int = 5
    learning_rate: float = 1e-3
    epochs: int = 10
    hidden: int = 16
    latent: int = 5

    def make_network(self) -> Network:
        return TwoAutoencoders(self.channels, self.window, self.hidden, self.latent)

    def fit_scaling(self, train: Values) -> None:
        """Lowest value and range of each channel: the decoders end in a sigmoid."""
        spread = np.ptp(train, axis=0)
        self.centre, self.scale = train.min(axis=0), np.where(spread == 0, 1.0, spread)
