"""Range-based precision, recall and F1: Tatbul et al., Precision and Recall for Time Series, 2018.

An event earns for being found at all (weight `existence`) and for its share that is alarmed,
divided by the number of alarms it takes (`reciprocal`) and weighted by position.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from renshu_tasks.anomaly.metrics.events import Indices, Labels, Scores, checked_flags, f1, runs

Position = Literal["flat", "front", "middle", "back"]


class RangeScores(NamedTuple):
    """Range-based precision, recall and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def range_f1(
    labels: npt.ArrayLike,
    alarms: npt.ArrayLike,
    *,
    existence: float = 0.2,
    reciprocal: bool = True,
    position: Position = "flat",
) -> RangeScores:
    """The range-based figures of alarms bool [n]; 0 where nothing is alarmed.

    `existence` is the weight of being found in recall; precision has none, as in the paper. It is
    0.2 in TSB-AD 1.5, 0.5 in aeon's and 0 in prts' default; prts does not divide by the number of
    alarms. `position` weighs recall only: precision is flat.
    """
    truth, raised = checked_flags(labels, alarms)
    recall = _reward(truth, raised, existence, reciprocal, position)
    precision = _reward(raised, truth, 0.0, reciprocal, "flat")
    return RangeScores(precision, recall, f1(precision, recall))


def _reward(
    wanted: Labels, given: Labels, existence: float, reciprocal: bool, position: Position
) -> float:
    """Mean reward of the ranges of `wanted` for what `given` covers of them."""
    starts, stops = runs(wanted)
    if not len(starts):
        return 0.0
    begins, ends = runs(wanted & given)
    # A stretch where both are true lies in one range of each.
    place = np.searchsorted(starts, begins, "right") - 1
    lengths = stops - starts
    covered = _running(ends - starts[place], lengths[place], position)
    covered = covered - _running(begins - starts[place], lengths[place], position)
    count = np.bincount(place, minlength=len(starts))
    share = np.bincount(place, covered, len(starts)) / _running(lengths, lengths, position)
    if reciprocal:
        share = share / np.maximum(count, 1)
    return float((existence * (count > 0) + (1 - existence) * share).mean())


def _running(upto: Indices, length: Indices, position: Position) -> Scores:
    """Sum of the weights of the first `upto` points of a range of `length`."""
    if position == "flat":
        return upto.astype(np.float64)
    if position == "back":  # 1, 2, ..., length
        return upto * (upto + 1) / 2
    if position == "front":  # length, ..., 2, 1
        return upto * (2 * length - upto + 1) / 2
    half = length // 2  # 1, 2, ..., half, then falling to 1
    rising = np.minimum(upto, half)
    falling = np.maximum(upto - half, 0)
    return rising * (rising + 1) / 2 + falling * (2 * (length - half) - falling + 1) / 2
