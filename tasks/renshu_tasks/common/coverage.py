"""Abstention: what the error becomes if only the surest samples are decided."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def risk_by_coverage(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], points: int = 20
) -> list[dict[str, float]]:
    """If only the most confident share is decided: how much of it is wrong, from what confidence.

    Selective prediction, El-Yaniv and Wiener 2010.
    """
    order = np.argsort(-confidence, kind="stable")
    wrong = (~right[order]).cumsum()
    counts = [max(1, round(len(order) * (i + 1) / points)) for i in range(points)]
    return [
        {
            "coverage": count / len(order),
            "risk": float(wrong[count - 1] / count),
            "confidence": float(confidence[order[count - 1]]),
        }
        for count in counts
    ]
