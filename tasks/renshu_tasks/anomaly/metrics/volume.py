"""Range-AUC and the volume under its surface (VUS), in all modes, by one sort and running sums.

Only points in an event or within half a window of one have a weight. They are put in the order of
their scores once; a window then costs one look-up of weights and one running sum over them, and a
threshold is a place in that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from renshu.errors import ConfigError
from renshu_tasks.anomaly.metrics.events import Indices, Labels, Scores, checked, runs
from renshu_tasks.anomaly.metrics.modes import Mode, find_mode

BLOCK = 1 << 15
"""So many windows are computed together as make so many cells: they stay in the cache."""


class Areas(NamedTuple):
    """Areas under the range-based curves: precision and recall, and ROC."""

    pr: float
    roc: float


def range_auc(
    labels: npt.ArrayLike, scores: npt.ArrayLike, window: int, mode: str = "exact"
) -> Areas:
    """Areas under the curves whose labels have soft edges of `window // 2` points.

    Args:
        labels: bool or 0/1 [n].
        scores: float [n], higher = more anomalous.
        window: 0 or more, in points; 0 is the plain average precision and ROC area.
        mode: a name of MODES.

    Raises DataError for labels of one kind only, scores that are not finite or too few.
    """
    return _mean_areas(labels, scores, [_whole(window)], find_mode(mode))


def vus(labels: npt.ArrayLike, scores: npt.ArrayLike, window: int, mode: str = "exact") -> Areas:
    """The mean of `range_auc` over the windows 0, 1, ..., `window`."""
    return _mean_areas(labels, scores, range(_whole(window) + 1), find_mode(mode))


def attainable(labels: npt.ArrayLike, window: int) -> Areas:
    """The highest `vus` in exact mode that any scores can reach: below 1 for windows above 1.

    Weights fall with the distance to the nearest event in every window alike, so the order by
    distance has at each count of alarms the most weight under them: no order is better in any
    window. One point of each event goes first, so that all are found while the precision is 1.
    """
    truth, _ = checked(labels, np.zeros(np.shape(labels)))
    starts, _ = runs(truth)
    later = np.ones(len(truth), dtype=bool)
    later[starts] = False
    best = np.empty(len(truth))
    best[np.lexsort((later, _distance(truth)))] = -np.arange(len(truth))
    return vus(truth, best, window)


def _whole(window: int) -> int:
    if isinstance(window, bool) or int(window) != window or window < 0:
        raise ConfigError(f"window {window!r}", allowed="a whole number of points, 0 or more")
    return int(window)


def _mean_areas(
    labels: npt.ArrayLike, scores: npt.ArrayLike, windows: Sequence[int], mode: Mode
) -> Areas:
    truth, values = checked(labels, scores)
    if mode.constant_zero and values.min() == values.max():
        return Areas(0.0, 0.0)
    near = _order(truth, values, windows[-1] // 2, mode)
    cuts = _cuts(values, near, mode)
    block = max(1, BLOCK // max(len(cuts.near), len(near.places)))
    blocks = [np.array(windows[i : i + block]) for i in range(0, len(windows), block)]
    pr, roc = np.hstack([_areas(near, cuts, some, mode) for some in blocks]).mean(axis=1)
    return Areas(float(pr), float(roc))


@dataclass(frozen=True)
class _Near:
    """The points with a weight, in the order of falling scores; a place is an index there.

    Attributes:
        points: number of points of the series.
        starts, lasts: first and last point of each event.
        scores: float64 [m], falling.
        places: int [c], a place for each weight that a point gets.
        codes: int [c], which weight: 0 in an event, d and reach + d at distance d before and
            behind one.
        before, behind: int [events, reach + 1], the first place within d of the event on a side.
        past: int [events, reach + 2], the place of the point d behind the event.
    """

    points: int
    starts: Indices
    lasts: Indices
    scores: Scores
    places: Indices
    codes: Indices
    before: Indices
    behind: Indices
    past: Indices


def _order(truth: Labels, scores: Scores, reach: int, mode: Mode) -> _Near:
    points = len(truth)
    starts, stops = runs(truth)
    steps = np.arange(reach + 2)
    left, right = starts[:, None] - steps, stops[:, None] - 1 + steps
    # What lies outside the series is a point of its own, behind the last; it is never alarmed.
    left[left < 0], right[right > points] = points, points
    weighted = np.zeros(points + 1, dtype=bool)
    weighted[:-1] = truth
    weighted[left[:, :-1]] = weighted[right[:, :-1]] = True
    chosen = np.flatnonzero(weighted[:-1])
    chosen = chosen[np.argsort(-scores[chosen])]
    place = np.full(points + 1, len(chosen))
    place[chosen] = np.arange(len(chosen))

    inside = np.minimum.reduceat(place, np.column_stack([starts, stops]).ravel())[::2]
    sides = [np.hstack([inside[:, None], place[side[:, 1:-1]]]) for side in (left, right)]
    before, behind = (np.minimum.accumulate(side, axis=1) for side in sides)
    places, codes = _weights(truth, left[:, 1:-1], right[:, 1:-1], place, mode)
    return _Near(
        points, starts, stops - 1, scores[chosen], places, codes, before, behind, place[right]
    )


def _weights(
    truth: Labels, left: Indices, right: Indices, place: Indices, mode: Mode
) -> tuple[Indices, Indices]:
    """Places and codes of all weights: one a point, or one a point and event where they add up."""
    events, reach = left.shape
    points = np.concatenate([left.ravel(), right.ravel()])
    codes = np.tile(np.arange(1, reach + 1), 2 * events)
    if mode.summed:
        codes[events * reach :] += reach
        outside = ~np.append(truth, True)[points]
        inside = np.flatnonzero(truth)
        places = np.concatenate([place[points[outside]], place[inside]])
        return places, np.concatenate([codes[outside], np.zeros(len(inside), dtype=np.intp)])
    nearest = np.full(len(truth) + 1, reach + 1)
    np.minimum.at(nearest, points, codes)
    nearest[:-1][truth] = 0
    chosen = np.flatnonzero(nearest[:-1] <= reach)
    ordered = np.empty(len(chosen), dtype=np.intp)
    ordered[place[chosen]] = nearest[chosen]
    return np.arange(len(chosen)), ordered


@dataclass(frozen=True)
class _Cuts:
    """Thresholds, falling: int [cuts] each.

    Attributes:
        alarms: how many points are alarmed.
        near: how many points with a weight.
        hits: how many anomalous points.
        skipped: points without a weight that thresholds between the last cut and this one alarm:
            on the way recall stays, and precision there moves no area.
    """

    alarms: Indices
    near: Indices
    hits: Indices
    skipped: Indices


def _cuts(scores: Scores, near: _Near, mode: Mode) -> _Cuts:
    ordered, points = np.sort(scores), len(scores)
    if mode.thresholds is None:
        ends = np.append(np.flatnonzero(np.diff(near.scores)) + 1, len(near.scores))
        at = near.scores[ends - 1]
        counts = points - np.searchsorted(ordered, at)
        skipped = points - np.searchsorted(ordered, at, "right") - np.append(0, counts[:-1])
        skipped = np.append(skipped, points - counts[-1])
        counts, ranks = np.append(counts, points), np.append(ends, len(near.scores))
    else:
        at = ordered[::-1][np.linspace(0, points - 1, mode.thresholds).astype(np.intp)]
        counts = points - np.searchsorted(ordered, at)
        ranks = len(near.scores) - np.searchsorted(near.scores[::-1], at)
        skipped = np.zeros(len(at), dtype=np.intp)
    inside = np.zeros(len(near.scores), dtype=np.intp)
    inside[near.places[near.codes == 0]] = 1
    return _Cuts(counts, ranks, _running(inside)[ranks], skipped)


def _running(values: npt.NDArray) -> npt.NDArray:
    """Sums of the first 0, 1, ..., n values of the last axis."""
    sums = np.zeros((*values.shape[:-1], values.shape[-1] + 1), dtype=values.dtype)
    np.cumsum(values, axis=-1, out=sums[..., 1:])
    return sums


def _areas(near: _Near, cuts: _Cuts, windows: Indices, mode: Mode) -> Scores:
    """Both areas of each of the windows: float64 [2, windows]."""
    weights = _tables(windows, near.before.shape[1] - 1, mode)[:, near.codes]
    if mode.summed:
        size = len(near.scores)
        cells = np.arange(len(windows))[:, None] * size + near.places
        weights = np.bincount(cells.ravel(), weights.ravel(), len(windows) * size)
        weights = np.minimum(weights.reshape(-1, size), 1)
    running = _running(weights)
    true, positives = running[:, cuts.near], int(cuts.hits[-1])
    if mode.predicted_mass:
        mass = positives + (true - cuts.hits) / 2
    else:
        mass = (positives + running[:, -1:]) / 2
    recall = np.minimum(true / mass, 1)
    recall *= np.array([_found(near, cuts, half, mode) for half in windows // 2])
    false = (cuts.alarms - true) / (near.points - mass)
    precision = true / cuts.alarms
    if mode.trapezoid:
        precision = (precision + np.insert(precision[:, :-1], 0, 1, axis=1)) / 2
    gain = np.diff(recall, prepend=0)
    roc = np.trapezoid(_ended(recall), _ended(false), axis=1)
    roc -= (gain * (cuts.skipped / (near.points - mass))).sum(axis=1) / 2
    return np.array([(gain * precision).sum(axis=1), roc])


def _ended(curve: Scores) -> Scores:
    """The curve with 0 before and 1 behind: [windows, cuts + 2]."""
    return np.pad(curve, [(0, 0), (1, 1)], constant_values=((0, 0), (0, 1)))


def _tables(windows: Indices, reach: int, mode: Mode) -> Scores:
    """The weight of every code in each window: float64 [windows, codes]."""
    distance, window = np.arange(1, reach + 1), windows[:, None]
    half = window // 2
    if mode.slope == "linear":
        slope = 1 - (1 - np.sqrt(0.5)) * distance / np.maximum(half, 1)
    else:
        slope = np.sqrt(np.maximum(1 - distance / np.maximum(window, 1), 0))
    behind = half - 1 if mode.short_right else half
    inside = np.ones((len(windows), 1))
    return np.hstack([inside, slope * (distance <= half), slope * (distance <= behind)])


def _found(near: _Near, cuts: _Cuts, half: int, mode: Mode) -> Scores:
    """Share of the events with an alarm in them or their buffers, at each cut."""
    behind = max(half - 1, 0) if mode.short_right else half
    first = np.minimum(near.before[:, half], near.behind[:, behind])
    if mode.peeks and half:
        meets = near.lasts[:-1] + half + 1 >= near.starts[1:] - half
        first[:-1][meets] = np.minimum(first[:-1], near.past[:-1, half + 1])[meets]
    if mode.merged:
        apart = near.lasts[:-1] + half < near.starts[1:] - half
        first = np.minimum.reduceat(first, np.append(0, np.flatnonzero(apart) + 1))
    return np.searchsorted(np.sort(first), cuts.near) / len(first)


def _distance(truth: Labels) -> Indices:
    """Points from each point to the nearest anomalous one: int [n]."""
    inside, places = np.flatnonzero(truth), np.arange(len(truth))
    after = np.searchsorted(inside, places)
    ahead = np.abs(inside[np.minimum(after, len(inside) - 1)] - places)
    return np.minimum(ahead, np.abs(inside[np.maximum(after - 1, 0)] - places))
