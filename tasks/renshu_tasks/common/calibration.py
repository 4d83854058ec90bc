"""What is chosen on the validation part after training: the temperature and decision thresholds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Guo et al. 2017: the T for which logits / T have the least negative log-likelihood.

    Args:
        logits: float [N, K].
        labels: int64 [N], or float [N, K] when there may be several.

    The targets keep the weight of one more sample spread over all classes (after Platt 1999), or a
    validation part without mistakes would call for T = 0. T = 1 is kept when nothing is better.
    """
    logits = logits.double()
    several = labels.is_floating_point()
    smooth = 1 / (len(logits) + 1)

    def loss(temperature: Tensor, smoothing: float) -> Tensor:
        scaled = logits / temperature
        if several:
            target = labels.double() * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(scaled, target)
        return F.cross_entropy(scaled, labels, label_smoothing=smoothing)

    with torch.enable_grad():
        log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([log_temperature], max_iter=50, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = loss(log_temperature.exp(), smooth)
            value.backward()
            return value

        optimizer.step(closure)
    temperature, one = log_temperature.detach().exp(), torch.ones((), dtype=torch.float64)
    better = bool(temperature.isfinite()) and bool(loss(temperature, 0) < loss(one, 0))
    return float(temperature) if better else 1.0


def best_thresholds(scores: Tensor, labels: Tensor) -> Tensor:
    """`best_threshold` of each column of `scores` [N, K]; labels as those of `fit_temperature`."""
    truth = labels if labels.is_floating_point() else torch.eye(scores.shape[1])[labels]
    columns = zip(scores.T, truth.T, strict=True)
    return torch.tensor([best_threshold(score, true) for score, true in columns])


def best_threshold(scores: Tensor, labels: Tensor) -> float:
    """The threshold on `scores` [N] with the best F1 for `labels` [N] (0 or 1).

    It lies halfway between two scores; of several equally good ones the nearest to 0.5. Without a
    positive sample it is 0.5.
    """
    order = scores.argsort(descending=True)
    ranked, hits = scores[order].double(), labels[order].double().cumsum(0)
    positives = hits[-1] if len(hits) else 0
    if positives == 0:
        return 0.5
    taken = torch.arange(1, len(ranked) + 1, dtype=torch.float64)
    following = torch.cat([ranked[1:], ranked.new_zeros(1)])
    f1 = 2 * hits / (taken + positives)
    f1[ranked == following] = -1  # a threshold cannot part equal scores
    between = (ranked + following) / 2
    best = f1 == f1.max()
    return float(between[best][(between[best] - 0.5).abs().argmin()])
