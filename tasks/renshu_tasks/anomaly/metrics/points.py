"""Figures over points: areas, F1, the best F1 that labels allow, and the point-adjusted one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from renshu_tasks.anomaly.metrics.events import Labels, Scores, checked, checked_flags, f1, runs
from renshu_tasks.anomaly.metrics.events_f1 import covered


class PointScores(NamedTuple):
    """Precision, recall over points, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


class Oracle(NamedTuple):
    """The best value over all thresholds, and the threshold, which the labels have chosen."""

    value: float
    threshold: float


class PointAdjusted(NamedTuple):
    """The point-adjusted F1, and what uniform random scores get by the same rule."""

    f1: float
    random_f1: float


def auc_pr(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Average precision, every distinct score a threshold, by steps."""
    hits, alarms, _ = _curve(*checked(labels, scores))
    return float((np.diff(hits, prepend=0) * hits / alarms).sum() / hits[-1])


def auc_roc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """The chance that an anomalous point scores above a normal one; ties count half."""
    hits, alarms, _ = _curve(*checked(labels, scores))
    true, false = np.append(0, hits), np.append(0, alarms - hits)
    return float(np.trapezoid(true, false) / (true[-1] * false[-1]))


def point_f1(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> PointScores:
    """Precision, recall and F1 of alarms bool [n]; 0 where nothing is alarmed."""
    truth, raised = checked_flags(labels, alarms)
    hits = int((truth & raised).sum())
    precision = hits / int(raised.sum()) if raised.any() else 0.0
    recall = hits / int(truth.sum())
    return PointScores(precision, recall, f1(precision, recall))


def oracle_point_f1(labels: npt.ArrayLike, scores: npt.ArrayLike) -> Oracle:
    """The highest point F1 that any threshold `scores >= t` reaches: it is chosen by the labels."""
    hits, alarms, thresholds = _curve(*checked(labels, scores))
    figures = 2 * hits / (alarms + hits[-1])
    best = int(np.argmax(figures))
    return Oracle(float(figures[best]), float(thresholds[best]))


def oracle(
    figure: Callable[[Labels, Labels], float],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    thresholds: int = 100,
) -> Oracle:
    """The highest `figure(labels, alarms)` of alarms `scores > t` over equally spaced thresholds.

    TSB-AD 1.5 reports its F1 values so. A monotone map of the scores changes the result.
    """
    truth, values = checked(labels, scores)
    tried = np.linspace(values.min(), values.max(), thresholds)
    figures = [figure(truth, values > threshold) for threshold in tried]
    best = int(np.nanargmax(figures))
    return Oracle(float(figures[best]), float(tried[best]))


def point_adjusted_f1(
    labels: npt.ArrayLike, scores: npt.ArrayLike, thresholds: int = 100, seed: int = 0
) -> PointAdjusted:
    """F1 after every event with one alarm was marked as wholly found; the best of all thresholds.

    Never a default: random scores reach about 0.9 where events are long (Kim et al. 2022), so the
    same figure of uniform random scores stands beside it, and a warning is given.
    """
    warnings.warn(
        "point-adjusted F1 counts a whole event as found by one point: random scores do well",
        stacklevel=2,
    )
    truth, values = checked(labels, scores)
    noise = np.random.default_rng(seed).random(len(truth))
    tried = [oracle(_adjusted, truth, one, thresholds).value for one in (values, noise)]
    return PointAdjusted(*tried)


def _adjusted(truth: Labels, raised: Labels) -> float:
    starts, stops = runs(truth)
    hits = int((stops - starts)[covered(truth, raised)].sum())
    false = int((raised & ~truth).sum())
    return 2 * hits / (hits + false + int(truth.sum()))


def _curve(truth: Labels, scores: Scores) -> tuple[Scores, Scores, Scores]:
    """At each distinct score, falling: anomalous points at or above it, all such points, it."""
    order = np.argsort(-scores)
    falling = scores[order]
    ends = np.append(np.flatnonzero(np.diff(falling)), len(scores) - 1)
    return np.cumsum(truth[order])[ends].astype(np.float64), ends + 1.0, falling[ends]
