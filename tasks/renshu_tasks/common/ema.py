"""Averaged weights, whose average is right from the first steps on."""

from __future__ import annotations

from renshu.callbacks.callback import Callback
from renshu.callbacks.ema import EMA


class WarmEMA(EMA):
    """Moving average whose decay grows as (1 + n) / (10 + n) up to the one that was asked for.

    So a short run is not held back by its first weights. The schedule is TensorFlow's
    (`ExponentialMovingAverage(num_updates=…)`).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay)
        self.highest = decay

    def should_update(self, step_idx: int, epoch_idx: int) -> bool:
        self.decay = min(self.highest, (1 + step_idx) / (10 + step_idx))
        return True


def averaged(decay: float) -> list[Callback]:
    """The callback that averages with a decay; none for 0."""
    return [WarmEMA(decay)] if decay else []
