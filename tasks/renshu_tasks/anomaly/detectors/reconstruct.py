"""Detectors that reconstruct a window: its error is the score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.detector import align
from renshu_tasks.anomaly.detectors.neural import NeuralDetector


@dataclass
class ReconstructionDetector(NeuralDetector):
    """A window's error is given to its middle, or, causal, to its last point."""

    def place(self, errors: NDArray[np.float64], causal: bool) -> NDArray[np.float64]:
        return align(errors, self.window, causal)
