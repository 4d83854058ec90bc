"""Spectral residual: what is left of the spectrum after its smooth part, back in time.

Ren et al. 2019, Time-Series Anomaly Detection Service at Microsoft, KDD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from renshu.errors import ConfigError
from renshu_tasks.anomaly.detector import Detector, Scores, align, window_blocks
from renshu_tasks.anomaly.series import Values


@dataclass
class SpectralResidual(Detector):
    """The saliency map of the whole series; causal, its last value over each window.

    The series is scaled to the training part's range; beyond the ends of the spectrum the log
    amplitude counts as 0 (TSB-AD puts the first and last value of the series there).

    Args:
        window: points of the causal transform.
        smoothing: frequencies over which the log amplitude is averaged.
    """

    name: ClassVar[str] = "spectral_residual"
    source: ClassVar[str] = "Ren et al. 2019"
    cost: ClassVar[str] = "T log T, causal T w log w"
    multivariate: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ("lowest", "scale")

    window: int = 200
    smoothing: int = 100

    def __post_init__(self) -> None:
        if self.window < 4 or self.smoothing < 1:
            raise ConfigError(
                f"window {self.window}, smoothing {self.smoothing}",
                where="detector spectral_residual",
                allowed="a window of 4 or more, a smoothing of 1 or more",
            )

    @property
    def memory(self) -> int:
        return self.window

    @property
    def shortest(self) -> int:
        return 4

    def _fit(self, train: Values) -> None:
        spread = np.ptp(train, axis=0)
        self.lowest, self.scale = train.min(axis=0), np.where(spread == 0, 1.0, spread)

    def _score(self, values: Values, causal: bool) -> Scores:
        x = (values - self.lowest) / self.scale
        if not causal:
            return self._saliency(x.T)[0]
        if len(x) < self.window:
            return np.zeros(len(x))
        blocks = [self._saliency(block)[:, -1] for block in window_blocks(x, self.window)]
        return align(np.concatenate(blocks), self.window, causal)

    def _saliency(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows [N, w] → saliency [N, w]. The mean's amplitude is left as it is."""
        length = rows.shape[1]
        spectrum = np.fft.rfft(rows)
        amplitude = np.abs(spectrum)
        # Amplitudes that are rounding alone have no meaning, and a logarithm of -36.
        floor = 1e-12 * amplitude.max(axis=1, keepdims=True) + np.finfo(float).tiny
        logarithm = np.log(np.maximum(amplitude, floor))
        width = min(self.smoothing, logarithm.shape[1] - 1)
        smooth = uniform_filter1d(
            logarithm[:, 1:], width, axis=1, mode="constant", origin=-1 if width > 1 else 0
        )
        gain = np.exp(-smooth) * (amplitude[:, 1:] > floor)
        spectrum[:, 1:] *= gain
        spectrum[:, 0] /= np.maximum(amplitude[:, 0], floor[:, 0])
        return np.abs(np.fft.irfft(spectrum, length))
