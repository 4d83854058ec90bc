"""Event-wise F1: what counts is that an event was alarmed at all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from renshu_tasks.anomaly.metrics.events import Labels, checked_flags, f1, runs


class EventScores(NamedTuple):
    """Precision, recall over events, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def event_f1(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> EventScores:
    """Events found, against alarms that touch none: El Amine Sehili and Zhang 2023.

    Precision is found / (found + false alarms), times 1 - the share of normal points alarmed, so
    that one alarm over everything is worth nothing. Alarms are stretches, not points.
    """
    truth, raised = checked_flags(labels, alarms)
    found = covered(truth, raised)
    false = int((~covered(raised, truth)).sum())
    hits = int(found.sum())
    normal = int((~truth).sum())
    share = int((raised & ~truth).sum()) / normal if normal else 0.0
    precision = hits / (hits + false) * (1 - share) if hits + false else 0.0
    return EventScores(precision, hits / len(found), f1(precision, hits / len(found)))


def composite_f1(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> EventScores:
    """Recall over events, precision over points: Garg et al. 2021; TSB-AD's "Event-based-F1"."""
    truth, raised = checked_flags(labels, alarms)
    found = covered(truth, raised)
    recall = float(found.mean())
    precision = int((truth & raised).sum()) / int(raised.sum()) if raised.any() else 0.0
    return EventScores(precision, recall, f1(precision, recall))


def covered(wanted: Labels, given: Labels) -> Labels:
    """Which stretches of `wanted` have a point of `given`: bool [stretches]."""
    starts, stops = runs(wanted)
    total = np.concatenate([[0], np.cumsum(given)])
    return total[stops] > total[starts]
