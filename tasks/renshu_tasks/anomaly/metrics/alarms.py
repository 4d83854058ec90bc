"""What an operator asks: how late, how often in vain; and NAB's score."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from renshu_tasks.anomaly.metrics.events import Scores, checked_flags, runs
from renshu_tasks.anomaly.metrics.events_f1 import covered


class Delay(NamedTuple):
    """Points from an event's start to its first alarm: mean over those found, NaN without one."""

    points: float
    found: int
    missed: int


def detection_delay(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> Delay:
    """How long after the start of an event its first alarm comes; events without one are counted.

    An alarm that was on before the event has delay 0.
    """
    truth, raised = checked_flags(labels, alarms)
    starts, stops = runs(truth)
    places = np.append(np.flatnonzero(raised), len(truth))
    first = places[np.searchsorted(places, starts)]
    found = first < stops
    delay = float((first - starts)[found].mean()) if found.any() else float("nan")
    return Delay(delay, int(found.sum()), int((~found).sum()))


def false_alarms_a_day(labels: npt.ArrayLike, alarms: npt.ArrayLike, seconds: float) -> float:
    """Stretches of alarm that touch no event, a day of normal time; `seconds` a point.

    NaN if all points are anomalous.
    """
    truth, raised = checked_flags(labels, alarms)
    days = int((~truth).sum()) * seconds / 86_400
    return int((~covered(raised, truth)).sum()) / days if days else float("nan")


def nab_score(labels: npt.ArrayLike, alarms: npt.ArrayLike, false_weight: float = 0.11) -> float:
    """NAB's score, 0 for no alarm at all and 100 for each event alarmed at its first point.

    Lavin and Ahmad 2015, the standard profile as NAB 1.1 computes it: an event earns by its
    earliest alarm, points outside lose by their distance from the event before them, in widths of
    that event; the first 15 % (750 points at most) are not scored. It can be far below 0. Raises
    DataError without an event. An event of one point counts as two wide, where NAB divides by 0.
    """
    truth, raised = checked_flags(labels, alarms)
    starts, stops = runs(truth)
    probation = int(min(0.15 * len(truth), 750))
    scored = np.arange(len(truth)) >= probation
    events = stops > probation
    places = np.arange(len(truth))

    last = np.searchsorted(stops - 1, places) - 1  # the event before each point, -1 for none
    width = np.maximum(stops - starts - 1, 1)
    past = np.where(last >= 0, (places - (stops - 1)[last]) / width[last], 3.0)
    lost = _sigmoid(past)[raised & ~truth & scored].sum() * false_weight

    places_raised = np.append(np.flatnonzero(raised & scored), len(truth))
    first = places_raised[np.searchsorted(places_raised, starts)]
    found = (first < stops) & events
    earned = _sigmoid(-(stops - first) / (stops - starts)) / _sigmoid(np.array(-1.0))
    total = np.where(found, earned, -1.0)[events].sum() + lost
    count = int(events.sum())
    return float(100 * (total + count) / (2 * count)) if count else float("nan")


def _sigmoid(position: Scores) -> Scores:
    """NAB's scaled sigmoid: 1 far before the end of a window, 0 at it, -1 from 3 widths behind."""
    scaled = 2 / (1 + np.exp(5 * np.minimum(position, 3.0))) - 1
    return np.where(position >= 3, -1.0, scaled)
