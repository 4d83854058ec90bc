"""What is chosen on the validation part after training, and how sure the probabilities may be."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

BINS = 15
"""Of the calibration error, as in Guo et al. 2017."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Guo et al. 2017: the T for which logits / T have the least negative log-likelihood.

    Args:
        logits: float [N, K].
        labels: int64 [N].

    T is looked for from 0.1 to 10; 1 is kept when nothing is better.
    """
    from scipy.optimize import minimize_scalar

    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    bound = math.log(10)
    found = minimize_scalar(loss, bounds=(-bound, bound), method="bounded")
    return math.exp(found.x) if found.fun < loss(0.0) else 1.0


def count_scores(scores: Tensor, labels: Tensor) -> Tensor:
    """int64 [2, 100]: how many of `scores` [N] fall in each hundredth; of `labels` 0, and 1."""
    places = (scores.double() * 100).floor().long().clamp(0, 99)
    return torch.stack([torch.bincount(places[labels == one], minlength=100) for one in (0, 1)])


def best_threshold(counts: Tensor) -> float:
    """The threshold, in hundredths, with the best Dice for what `count_scores` counted.

    Of several equally good ones the nearest to 0.5; without a positive voxel it is 0.5.
    """
    positives, everything = counts[1], counts.sum(0)
    # From each threshold upwards: what is called positive, and what of it is.
    hits, called = (counts.flip(0).cumsum(0).flip(0) for counts in (positives, everything))
    dice = 2 * hits / (called + positives.sum()).clamp_min(1)
    thresholds = torch.arange(100) / 100
    best = (dice[1:] >= dice[1:].max()).nonzero()[:, 0] + 1
    if not positives.sum():
        return 0.5
    return float(thresholds[best[(thresholds[best] - 0.5).abs().argmin()]])


def calibration(probabilities: Tensor, labels: Tensor) -> dict[str, object]:
    """Expected calibration error, log-likelihood and the bins behind them (Guo et al. 2017)."""
    confidence, chosen = probabilities.double().max(1)
    right = (chosen == labels).double()
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # bins (a, b]
    counts = torch.bincount(place, minlength=BINS)
    sums = [torch.bincount(place, values, BINS) for values in (confidence, right)]
    gaps = (sums[0] - sums[1]).abs()
    true = probabilities.double().gather(1, labels[:, None]).clamp_min(1e-12)
    return {
        "voxels": len(labels),
        "ece": float(gaps.sum() / max(len(labels), 1)),
        "nll": float(-true.log().mean()),
        "bins": [
            {"confidence": float(sums[0][b] / n), "accuracy": float(sums[1][b] / n), "voxels": n}
            for b, n in enumerate(counts.tolist())
            if n
        ],
    }


def coverage(confidence: NDArray[np.float64], dice: NDArray[np.float64]) -> list[dict[str, float]]:
    """If only the surest cases are accepted: 1 - their mean Dice, by the share that they are.

    Selective prediction, El-Yaniv and Wiener 2010; a case without a Dice is left out.
    """
    known = np.isfinite(dice)
    order = np.argsort(-confidence[known], kind="stable")
    risks = np.cumsum(1 - dice[known][order]) / np.arange(1, len(order) + 1)
    return [
        {
            "coverage": (n + 1) / len(order),
            "risk": float(risks[n]),
            "confidence": float(confidence[known][order][n]),
        }
        for n in range(len(order))
    ]
