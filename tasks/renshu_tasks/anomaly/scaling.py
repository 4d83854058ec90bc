"""Scaling that knows constant stretches: nothing is divided by a deviation that is only noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.series import Values

_NOISE = 1e-10
"""A deviation below this share of the values' size is rounding, not signal."""


def moments(values: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each column of [N, C]; of a constant one itself and 1."""
    mean, found = values.mean(axis=0), values.std(axis=0)
    constant = found <= _NOISE * np.abs(values).max(axis=0, initial=0)
    return np.where(constant, values[0], mean), np.where(constant, 1.0, found)


def deviation(values: Values) -> NDArray[np.float64]:
    """Standard deviation of each channel, float64 [C]; 1 for a channel that is constant."""
    return moments(values)[1]


def z_normalise(windows: NDArray[np.float64], channels: int) -> NDArray[np.float64]:
    """Windows [N, w × C] → mean 0 and deviation 1 (ddof 1) in each window and channel.

    A window that is constant but for rounding becomes 0.
    """
    shaped = windows.reshape(len(windows), -1, channels)
    if shaped.shape[1] == 1:
        return np.zeros_like(windows)
    centred = shaped - shaped.mean(axis=1, keepdims=True)
    spread = shaped.std(axis=1, ddof=1, keepdims=True)
    flat = spread <= _NOISE * np.abs(shaped).max(axis=1, keepdims=True)
    return np.where(flat, 0.0, centred / np.where(flat, 1.0, spread)).reshape(windows.shape)
