"""Affiliation precision and recall: how near alarms are to events, against chance.

Huet, Navarro and Rossi, Local evaluation of time series anomaly detection algorithms, KDD 2022.
Each event has a zone, up to halfway to its neighbours. An alarm is as good as the probability that
a uniformly random point of the zone is further from the event; recall looks from the event to the
alarms. Both are integrals of piecewise linear functions, taken exactly between their kinks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from renshu_tasks.anomaly.metrics.events import Indices, Labels, Scores, checked_flags, f1, runs

Curve = Callable[[Scores], Scores]


class Affiliation(NamedTuple):
    """The three figures; precision is NaN, and F 0, where nothing was alarmed."""

    precision: float
    recall: float
    f1: float


def affiliation(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> Affiliation:
    """Affiliation precision, recall and F1 of alarms bool [n]; a point i is the interval [i, i+1).

    Precision is the mean over the zones that have an alarm, recall over all. Raises DataError
    without an event.
    """
    truth, raised = checked_flags(labels, alarms)
    if not raised.any():
        return Affiliation(float("nan"), 0.0, 0.0)
    zones = _zones(truth)
    pieces = _pieces(raised, zones)
    mean, recall = _precision(zones, pieces), _recall(zones, pieces)
    return Affiliation(mean, recall, f1(mean, recall))


@dataclass(frozen=True)
class _Zones:
    """Events and the zones around them: float [events] each."""

    low: Scores
    start: Scores
    stop: Scores
    high: Scores


@dataclass(frozen=True)
class _Pieces:
    """Alarms cut at the zones' borders: float [pieces] each, and the zone they lie in."""

    start: Scores
    stop: Scores
    zone: Indices


def _zones(truth: Labels) -> _Zones:
    starts, stops = (edge.astype(np.float64) for edge in runs(truth))
    borders = (stops[:-1] + starts[1:]) / 2
    low, high = np.append(0.0, borders), np.append(borders, float(len(truth)))
    return _Zones(low, starts, stops, high)


def _pieces(raised: Labels, zones: _Zones) -> _Pieces:
    starts, stops = runs(raised)
    inner = zones.high[:-1]
    # A border inside an alarm ends one piece and starts the next.
    cuts = inner[np.searchsorted(starts, inner) > np.searchsorted(stops, inner, "right")]
    start, stop = np.sort(np.append(starts, cuts)), np.sort(np.append(stops, cuts))
    return _Pieces(start, stop, np.searchsorted(inner, start, "right"))


def _precision(zones: _Zones, pieces: _Pieces) -> float:
    low, begin, end, high = (
        edge[pieces.zone] for edge in (zones.low, zones.start, zones.stop, zones.high)
    )
    margin, width = np.minimum(begin - low, high - end), high - low

    def chance(points: Scores, border: Scores) -> Scores:
        distance = np.abs(points - border)
        nearer = np.minimum(distance, margin) + distance + (end - begin)
        return 1 - nearer / width

    inside = np.maximum(np.minimum(pieces.stop, end) - np.maximum(pieces.start, begin), 0)
    left = np.minimum(pieces.start, begin), np.minimum(pieces.stop, begin)
    right = np.maximum(pieces.start, end), np.maximum(pieces.stop, end)
    outside = _integral(*left, [begin - margin], lambda x: chance(x, begin))
    outside += _integral(*right, [end + margin], lambda x: chance(x, end))
    count = len(zones.low)
    gained = np.bincount(pieces.zone, inside + outside, count)
    length = np.bincount(pieces.zone, pieces.stop - pieces.start, count)
    return float((gained[length > 0] / length[length > 0]).mean())


def _recall(zones: _Zones, pieces: _Pieces) -> float:
    low, begin, end, high = (
        edge[pieces.zone] for edge in (zones.low, zones.start, zones.stop, zones.high)
    )
    middle, width = (low + high) / 2, high - low
    # A point belongs to the nearest alarm of its zone: up to halfway to the next one.
    same = pieces.zone[1:] == pieces.zone[:-1]
    halfway = (pieces.stop[:-1] + pieces.start[1:]) / 2
    lower = np.append(low[:1], np.where(same, halfway, low[1:]))
    upper = np.append(np.where(same, halfway, high[:-1]), high[-1])

    def chance(points: Scores, border: Scores) -> Scores:
        distance = np.abs(points - border)
        return (
            1 - (np.minimum(distance, np.minimum(points - low, high - points)) + distance) / width
        )

    found = np.maximum(np.minimum(pieces.stop, end) - np.maximum(pieces.start, begin), 0)
    for one, other, border in (
        (lower, pieces.start, pieces.start),
        (pieces.stop, upper, pieces.stop),
    ):
        first, last = np.clip(one, begin, end), np.clip(other, begin, end)
        kinks = [middle, (low + border) / 2, (high + border) / 2]
        found = found + _integral(first, last, kinks, lambda x, border=border: chance(x, border))
    gained = np.bincount(pieces.zone, found, len(zones.low))
    return float((gained / (zones.stop - zones.start)).mean())


def _integral(first: Scores, last: Scores, kinks: list[Scores], function: Curve) -> Scores:
    """Integrals from `first` to `last` of functions that are linear between the kinks."""
    inner = np.sort([np.clip(kink, first, last) for kink in kinks], axis=0)
    knots = [first, *inner, last]
    heights = [function(knot) for knot in knots]
    pairs = zip(knots[:-1], knots[1:], heights[:-1], heights[1:], strict=True)
    return np.sum([(b - a) * (fa + fb) / 2 for a, b, fa, fb in pairs], axis=0)
