"""Figures of finished predictions, with 95 % bootstrap intervals over texts that belong together.

The figures are torchmetrics' and seqeval's, held against them by the tests; what is written here
counts once and resamples the counts, since a thousand resamples of a library's call would take
minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

RESAMPLES = 1000
BINS = 15
"""Of the calibration error, as in Guo et al. 2017."""

Figures = Callable[[Numbers], Mapping[str, Numbers]]
"""Weights of the units' counts [R, U] → figures [R] by name."""


def bootstrap(
    figures: Figures, groups: NDArray[np.int64], seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """Each figure with the ends of its percentile interval (Efron 1979).

    Args:
        figures: takes float64 weights [R, N], how often each row was drawn.
        groups: int64 [N]: rows of one group are drawn together.
        seed: of the resamples.

    The ends are None where no resample differs from another, for that says nothing of how sure the
    figure is.
    """
    units = np.unique(groups, return_inverse=True)[1]
    count = int(units.max()) + 1
    random = np.random.default_rng(seed)
    drawn: dict[str, list[Numbers]] = {}
    chunk = max(1, min(RESAMPLES, 20_000_000 // len(groups)))
    for start in range(0, RESAMPLES, chunk):
        size = min(chunk, RESAMPLES - start)
        picks = random.multinomial(count, np.full(count, 1 / count), size=size)
        for name, values in figures(picks[:, units].astype(np.float64)).items():
            drawn.setdefault(name, []).append(values)
    points = figures(np.ones((1, len(groups))))
    return {name: _interval(points[name][0], np.concatenate(drawn[name])) for name in points}


def _interval(point: float, values: Numbers) -> dict[str, float | None]:
    value = float(point) if np.isfinite(point) else None
    if not np.isfinite(values).any():
        return {"value": value, "low": None, "high": None}
    low, high = (float(end) for end in np.nanquantile(values, [0.025, 0.975]))
    if high - low < 1e-9:  # no more than rounding
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": low, "high": high}


def classification(truth: NDArray[Any], chosen: NDArray[Any], classes: int) -> Figures:
    """accuracy, macro_f1 over classes that occur, mcc (Gorodkin 2004): one label a text.

    `truth` and `chosen` are int64 [N].
    """
    cells = truth * classes + chosen

    def figures(weights: Numbers) -> dict[str, Numbers]:
        table = np.stack([np.bincount(cells, w, minlength=classes**2) for w in weights])
        table = table.reshape(-1, classes, classes)
        hits = np.diagonal(table, axis1=1, axis2=2)
        true, picked, total = table.sum(2), table.sum(1), table.sum((1, 2))
        right = hits.sum(1)
        covariance = right * total - (true * picked).sum(1)
        spread = (total**2 - (picked**2).sum(1)) * (total**2 - (true**2).sum(1))
        with np.errstate(divide="ignore", invalid="ignore"):
            mcc = np.where(spread > 0, covariance / np.sqrt(spread), 0.0)
        return {"accuracy": right / total, "macro_f1": _macro(hits, true, picked), "mcc": mcc}

    return figures


def multi_label(truth: NDArray[Any], chosen: NDArray[Any]) -> Figures:
    """accuracy (all labels of a text right), macro_f1 and micro_f1; bool [N, K] both."""
    hits, true, picked = (a.astype(np.float64) for a in (truth & chosen, truth, chosen))
    right = (truth == chosen).all(1).astype(np.float64)

    def figures(weights: Numbers) -> dict[str, Numbers]:
        h, t, p = weights @ hits, weights @ true, weights @ picked
        with np.errstate(divide="ignore", invalid="ignore"):
            micro = 2 * h.sum(1) / (t.sum(1) + p.sum(1))
        accuracy = weights @ right / weights.sum(1)
        return {"accuracy": accuracy, "macro_f1": _macro(h, t, p), "micro_f1": micro}

    return figures


def _macro(hits: Numbers, true: Numbers, picked: Numbers) -> Numbers:
    """Mean F1 [R] of the classes [R, K] that occur."""
    f1 = np.where(true > 0, 2 * hits / np.maximum(true + picked, 1), np.nan)
    some = (true > 0).sum(1)
    return np.where(some > 0, np.nansum(f1, 1) / np.maximum(some, 1), np.nan)


def calibration(confidence: Numbers, right: NDArray[np.bool_]) -> Figures:
    """ece (Guo et al. 2017): |confidence - share right| of each bin (a, b], by its share."""
    place = np.clip(np.ceil(confidence * BINS).astype(int), 1, BINS) - 1
    gaps = np.zeros((len(confidence), BINS))
    gaps[np.arange(len(confidence)), place] = confidence - right
    return lambda weights: {"ece": np.abs(weights @ gaps).sum(1) / weights.sum(1)}


def regression(truth: Numbers, found: Numbers) -> Figures:
    """mae, rmse, pearson, r2."""
    values = np.stack([np.abs(found - truth), (found - truth) ** 2, truth, found], 1)
    values = np.concatenate([values, np.stack([truth**2, found**2, truth * found], 1)], 1)

    def figures(weights: Numbers) -> dict[str, Numbers]:
        mae, mse, t, f, tt, ff, tf = (weights @ values / weights.sum(1, keepdims=True)).T
        spread, own = tt - t**2, ff - f**2
        with np.errstate(divide="ignore", invalid="ignore"):
            pearson = (tf - t * f) / np.sqrt(spread * own)
            return {"mae": mae, "rmse": np.sqrt(mse), "pearson": pearson, "r2": 1 - mse / spread}

    return figures


def entity_counts(truth: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> Numbers:
    """[N, 3] a sentence: entities that are right in bounds and type, of the truth, found.

    Entities are those of seqeval, as conlleval counts them (Tjong Kim Sang and Buchholz 2000).
    """
    from seqeval.metrics.sequence_labeling import get_entities

    rows = []
    for true, said in zip(truth, found, strict=True):
        one, other = set(get_entities(list(true))), set(get_entities(list(said)))
        rows.append((len(one & other), len(one), len(other)))
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def entities(counts: Numbers) -> Figures:
    """entity_f1, entity_precision, entity_recall from [N, 3] of `entity_counts`."""

    def figures(weights: Numbers) -> dict[str, Numbers]:
        hits, true, found = (weights @ counts).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "entity_f1": 2 * hits / (true + found),
                "entity_precision": hits / found,
                "entity_recall": hits / true,
            }

    return figures


def perplexity(losses: Numbers, tokens: Numbers) -> Figures:
    """loss a token and its exponential, from each text's sum of losses and number of tokens."""

    def figures(weights: Numbers) -> dict[str, Numbers]:
        loss = weights @ losses / (weights @ tokens)
        return {"perplexity": np.exp(loss), "loss": loss}

    return figures


def shares(**right: NDArray[np.bool_]) -> Figures:
    """Of each name the share of rows that are right."""
    columns = {name: values.astype(np.float64) for name, values in right.items()}
    return lambda weights: {n: weights @ v / weights.sum(1) for n, v in columns.items()}


def per_class(
    truth: NDArray[np.bool_], chosen: NDArray[np.bool_], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class; bool [N, K] both."""
    hits, true, picked = (truth & chosen).sum(0), truth.sum(0), chosen.sum(0)

    def share(part: float, whole: float) -> float | None:
        return float(part / whole) if whole else None

    return [
        {
            "class": name,
            "precision": share(hits[k], picked[k]),
            "recall": share(hits[k], true[k]),
            "f1": share(2 * hits[k], true[k] + picked[k]),
            "support": int(true[k]),
        }
        for k, name in enumerate(classes)
    ]
