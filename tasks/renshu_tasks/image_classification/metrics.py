"""Figures of finished predictions: per class, calibration, coverage, with 95 % intervals.

Plain torch on the CPU: importing torchmetrics alone would take a tenth of the time that a whole run
on the digits may take. The tests hold every figure against torchmetrics and scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from renshu_tasks.common.coverage import risk_by_coverage

BINS = 15
"""Of the calibration error, as in Guo 2017."""

RESAMPLES = 1000
AUROC_LIMIT = 2_000_000
"""Scores (samples × classes) up to which AUROC gets an interval: it is the dear one."""

Figures = Callable[[Tensor], Tensor]
"""Weights of the samples [R, N], one row a resample → figures [R, …]."""


def evaluate(
    probabilities: Tensor,
    labels: Tensor,
    predicted: Tensor,
    classes: list[str],
    groups: Tensor | None = None,
) -> dict[str, Any]:
    """All figures as plain numbers, ready for JSON. What is not defined is None.

    Args:
        probabilities: float [N, K].
        labels: int64 [N], or float [N, K] with 0 and 1 when there may be several.
        predicted: int64 [N], or bool [N, K].
        classes: the K names.
        groups: int64 [N]: samples that belong together (a patient) are resampled together.

    `accuracy`, `macro_f1`, `ece` and `auroc` are {"value", "low", "high"}; the ends are None where
    no resample differs from another, for that says nothing of how sure the figure is. A sample
    with several labels is right when all K agree. Means over classes leave out those that do not
    occur.
    """
    truth, chosen = _hot(labels, len(classes)), _hot(predicted, len(classes))
    confidence, correct = confidences(probabilities, labels, predicted)
    figures: dict[str, Any] = {
        "samples": len(labels),
        **_intervals(probabilities, truth, chosen, confidence, correct, groups),
        "nll": nll(probabilities, labels),
        "coverage": coverage(confidence, correct),
        "per_class": per_class(probabilities, truth, chosen, classes),
    }
    if labels.ndim == 1:
        figures["top_k"] = {
            str(k): top_k(probabilities, labels, k) for k in (1, 3, 5) if k < len(classes)
        }
    return figures


def _hot(labels: Tensor, classes: int) -> Tensor:
    """Labels [N] or [N, K] → bool [N, K]."""
    return labels.bool() if labels.ndim == 2 else torch.arange(classes) == labels[:, None]


def confidences(probabilities: Tensor, labels: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Confidence in each decision and whether it is right: [N], or [N, K] with several labels."""
    if labels.ndim == 2:
        confidence = torch.where(predicted, probabilities, 1 - probabilities)
        return confidence, predicted == labels.bool()
    return probabilities.gather(1, predicted[:, None])[:, 0], predicted == labels


def losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each sample, float64 [N]; with several labels the mean over K."""
    safe = probabilities.double().clamp(1e-12, 1 - 1e-12)
    if labels.ndim == 2:
        return -torch.where(labels.bool(), safe, 1 - safe).log().mean(1)
    return -safe.gather(1, labels[:, None])[:, 0].log()


def nll(probabilities: Tensor, labels: Tensor) -> float:
    """Mean negative log-likelihood."""
    return float(losses(probabilities, labels).mean())


def top_k(probabilities: Tensor, labels: Tensor, k: int) -> float:
    """Share of samples whose class is among the k most probable."""
    return float((probabilities.topk(k, dim=1).indices == labels[:, None]).any(1).double().mean())


def confusion_matrix(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """int64 [K, K]: row = true class, column = predicted class."""
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, -1)


def per_class(
    probabilities: Tensor, truth: Tensor, chosen: Tensor, classes: list[str]
) -> list[dict[str, Any]]:
    """Precision, recall, F1, AUROC (one against the rest) and support of each class."""
    hits, picks, support = (truth & chosen).sum(0), chosen.sum(0), truth.sum(0)
    areas = _areas(probabilities, truth)(torch.ones(1, len(truth)))[0].tolist()
    return [
        {
            "class": name,
            "precision": _ratio(hits[k], picks[k]),
            "recall": _ratio(hits[k], support[k]),
            "f1": _ratio(2 * hits[k], picks[k] + support[k]),
            "auroc": None if math.isnan(areas[k]) else areas[k],
            "support": int(support[k]),
        }
        for k, name in enumerate(classes)
    ]


def _ratio(part: Tensor, whole: Tensor) -> float | None:
    return float(part / whole) if whole else None


def coverage(confidence: Tensor, correct: Tensor, points: int = 20) -> list[dict[str, float]]:
    """With several labels a sample is as sure as its least sure decision."""
    if confidence.ndim == 2:
        confidence, correct = confidence.min(1).values, correct.all(1)
    return risk_by_coverage(confidence.numpy(), correct.numpy(), points)


def _intervals(
    probabilities: Tensor,
    truth: Tensor,
    chosen: Tensor,
    confidence: Tensor,
    correct: Tensor,
    groups: Tensor | None,
) -> dict[str, dict[str, float | None]]:
    """The main figures, each with its 95 % interval.

    That of accuracy without groups is Wilson's, which holds where all are right as well; the others
    are percentile bootstrap intervals (Efron 1979).
    """
    areas = _areas(probabilities, truth)
    figures: dict[str, Figures] = {
        "accuracy": _accuracy(truth, chosen),
        "macro_f1": _macro_f1(truth, chosen),
        "ece": _calibration_error(confidence, correct),
        "auroc": lambda weights: areas(weights).nanmean(1, keepdim=True),
    }
    drawn = [name for name in figures if name != "auroc" or probabilities.numel() <= AUROC_LIMIT]
    resamples: dict[str, list[Tensor]] = {name: [] for name in drawn}
    for weights in _resamples(len(truth), groups):
        for name in drawn:
            resamples[name].append(figures[name](weights))
    found = {
        name: _interval(figure(torch.ones(1, len(truth))), resamples.get(name))
        for name, figure in figures.items()
    }
    if groups is None:
        right = int((truth == chosen).all(1).sum())
        found["accuracy"] |= dict(zip(("low", "high"), wilson(right, len(truth)), strict=True))
    return found


def wilson(right: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """Ends of the score interval of a share, by default the 95 % one (Wilson 1927)."""
    share, square = right / count, z * z
    centre = share + square / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count))
    low, high = ((centre + side * half) / (1 + square / count) for side in (-1, 1))
    return (low if right else 0.0), (high if right < count else 1.0)  # exactly, not but for an ulp


def _resamples(samples: int, groups: Tensor | None, seed: int = 0, chunk: int = 50) -> Any:
    """How often each sample was drawn with replacement: float [chunk, N], RESAMPLES rows in all."""
    unit = torch.arange(samples) if groups is None else groups.unique(return_inverse=True)[1]
    units = int(unit.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    for _ in range(RESAMPLES // chunk):
        draws = torch.randint(units, (chunk, units), generator=generator)
        counts = torch.zeros(chunk, units).scatter_add_(1, draws, torch.ones(chunk, units))
        yield counts[:, unit]


def _interval(point: Tensor, drawn: list[Tensor] | None) -> dict[str, float | None]:
    """The figure, and the ends of its bootstrap interval unless all resamples agree."""
    ends = [math.nan, math.nan]
    if drawn is not None:
        ends = torch.cat(drawn).flatten().float().nanquantile(torch.tensor([0.025, 0.975])).tolist()
    if ends[1] - ends[0] < 1e-6:  # no more than rounding
        ends = [math.nan, math.nan]
    values = {"value": float(point), "low": ends[0], "high": ends[1]}
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _accuracy(truth: Tensor, chosen: Tensor) -> Figures:
    right = (truth == chosen).all(1, keepdim=True).float()
    return lambda weights: (weights @ right) / weights.sum(1, keepdim=True)


def _macro_f1(truth: Tensor, chosen: Tensor) -> Figures:
    columns = torch.cat([truth & chosen, truth, chosen], dim=1).float()

    def figures(weights: Tensor) -> Tensor:
        hits, support, picks = (weights @ columns).chunk(3, dim=1)
        f1 = torch.where(support > 0, 2 * hits / (support + picks).clamp(min=1), torch.nan)
        return f1.nanmean(1, keepdim=True)

    return figures


def _calibration_error(confidence: Tensor, correct: Tensor) -> Figures:
    """Guo et al. 2017: |confidence - accuracy| of each bin of equal width, by its share."""
    confidence, correct = (t.float().view(len(t), -1) for t in (confidence, correct))
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # bins (a, b]
    gaps = torch.zeros(len(confidence), BINS).scatter_add_(1, place, confidence - correct)
    decisions = confidence.shape[1]
    return lambda weights: (
        (weights @ gaps).abs().sum(1, keepdim=True) / (decisions * weights.sum(1, keepdim=True))
    )


def _areas(probabilities: Tensor, truth: Tensor) -> Figures:
    """AUROC of each class: the chance that one of it scores above another (Mann and Whitney 1947).

    Ties count half; NaN for a class without positives or without negatives.
    """
    ranked = [column.unique(return_inverse=True) for column in probabilities.T]

    def figures(weights: Tensor) -> Tensor:
        areas = []
        for (levels, place), positive in zip(ranked, truth.T, strict=True):
            empty = weights.new_zeros(len(weights), len(levels), dtype=torch.float64)
            above = empty.index_add(1, place, (weights * positive).double())
            below = empty.index_add(1, place, (weights * ~positive).double())
            beaten = (above * (below.cumsum(1) - below / 2)).sum(1)
            areas.append(beaten / (above.sum(1) * below.sum(1)))
        return torch.stack(areas, dim=1)

    return figures
