"""The one rule for the window of a metric: from the data set's values, never from a detector."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from renshu.errors import DataError
from renshu_tasks.anomaly.metrics.events import Scores

SHORTEST, LONGEST, FALLBACK = 3, 300, 125
POINTS = 20_000
CLEAR = 0.1
NEARLY = 0.95


class Window(NamedTuple):
    """A window, and how it was found: both stand in every result row."""

    points: int
    rule: str


def metric_window(values: npt.ArrayLike) -> Window:
    """The period of a series, by the autocorrelation of its first 20,000 points.

    The period is the shortest lag from 3 to 300 at which the autocorrelation has a local maximum
    that is at least 0.95 of the highest such maximum; one below 0.1, or none, gives 125. A period
    that is planted is returned exactly. Several channels, float [T, C]: the median of the periods
    of those that have one, rounded down. Paparrizos et al. 2022 use the same idea; TSB-AD's own
    function misses the limits by its base of 3 lags and gives 0 for several channels.
    """
    table = np.asarray(values, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or not len(table):
        raise DataError(f"values of shape {table.shape}", allowed="[points] or [points, channels]")
    if not np.isfinite(table[:POINTS]).all():
        raise DataError("values that are not finite have no period", allowed="finite values")
    found = [p for p in (_period(channel) for channel in table[:POINTS].T) if p is not None]
    if not found:
        return Window(FALLBACK, f"no period: {FALLBACK}")
    channels = f" of {len(found)} channels, median" if table.shape[1] > 1 else ""
    return Window(int(np.median(found)), f"period{channels}")


def _period(channel: Scores) -> int | None:
    lags = min(LONGEST + 1, len(channel) // 2)
    if lags <= SHORTEST or channel.min() == channel.max():
        return None
    curve = _autocorrelation(channel / np.abs(channel).max(), lags)
    inner = curve[1:-1]
    peaks = np.flatnonzero((inner > curve[:-2]) & (inner >= curve[2:])) + 1
    peaks = peaks[(peaks >= SHORTEST) & (peaks <= LONGEST)]
    if not len(peaks) or curve[peaks].max() < CLEAR:
        return None
    return int(peaks[curve[peaks] >= NEARLY * curve[peaks].max()][0])


def _autocorrelation(channel: Scores, lags: int) -> Scores:
    """Correlation of the series with itself at lags 0 to `lags`, each by its own pairs."""
    centred = channel - channel.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    products = np.fft.irfft(spectrum * spectrum.conj(), size)[: lags + 1]
    squares = np.concatenate([[0.0], np.cumsum(centred**2)])
    lag = np.arange(lags + 1)
    ahead, behind = squares[len(centred) - lag], squares[-1] - squares[lag]
    return products / np.sqrt(np.maximum(ahead * behind, np.finfo(float).tiny))
