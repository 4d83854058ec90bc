"""From scores to the figures of a row: the same function for a new run and for stored scores."""

from __future__ import annotations

import numpy as np

from renshu_tasks.anomaly.metrics.affiliation import affiliation
from renshu_tasks.anomaly.metrics.alarms import detection_delay, false_alarms_a_day, nab_score
from renshu_tasks.anomaly.metrics.events import Labels, Scores
from renshu_tasks.anomaly.metrics.events_f1 import event_f1
from renshu_tasks.anomaly.metrics.points import auc_pr, auc_roc, oracle_point_f1, point_f1
from renshu_tasks.anomaly.metrics.ranges import range_f1
from renshu_tasks.anomaly.metrics.volume import attainable, vus

FIGURES = {
    "vus_pr": "VUS-PR",
    "vus_pr_max": "highest VUS-PR that any scores reach",
    "vus_roc": "VUS-ROC",
    "vus_roc_max": "highest VUS-ROC that any scores reach",
    "auc_pr": "average precision",
    "auc_roc": "area under ROC",
    "point_f1": "F1 over points",
    "event_f1": "F1 over events",
    "range_f1": "range-based F1",
    "affiliation_f1": "affiliation F1",
    "nab": "NAB score",
    "delay": "points from the start of an event to its first alarm, mean over those found",
    "missed": "events without an alarm",
    "false_alarms_a_day": "stretches of alarm that touch no event, a day of normal time",
    "oracle_point_f1": "F1 over points at the threshold that the labels choose",
}
"""Every figure of a row. Those from point_f1 to false_alarms_a_day need a threshold."""

HIGHER_IS_BETTER = (
    "vus_pr",
    "vus_roc",
    "auc_pr",
    "auc_roc",
    "point_f1",
    "event_f1",
    "range_f1",
    "affiliation_f1",
    "nab",
    "oracle_point_f1",
)
"""Figures that detectors can be ranked by."""


def figures(
    labels: Labels,
    scores: Scores,
    *,
    threshold: float | None,
    window: int,
    mode: str,
    period: float,
) -> dict[str, float | None]:
    """All FIGURES of scores float64 [T]; None for what has no value.

    Args:
        labels: bool [T].
        scores: float64 [T].
        threshold: alarms are the scores above it; None: there is none, the alarms have no figure.
        window: of VUS, in points.
        mode: of VUS; the attainable maximum is that of exact.
        period: seconds a point.

    Raises DataError for scores or labels that have no figure.
    """
    pr, roc = vus(labels, scores, window, mode)
    found: dict[str, float | None] = dict.fromkeys(FIGURES)
    found |= {"vus_pr": pr, "vus_roc": roc}
    if mode == "exact":
        limit = attainable(labels, window)
        found |= {"vus_pr_max": limit.pr, "vus_roc_max": limit.roc}
    found |= {"auc_pr": auc_pr(labels, scores), "auc_roc": auc_roc(labels, scores)}
    found["oracle_point_f1"] = oracle_point_f1(labels, scores).value
    if threshold is not None:
        alarms = scores > threshold
        delay = detection_delay(labels, alarms)
        found |= {
            "point_f1": point_f1(labels, alarms).f1,
            "event_f1": event_f1(labels, alarms).f1,
            "range_f1": range_f1(labels, alarms).f1,
            "affiliation_f1": affiliation(labels, alarms).f1,
            "nab": nab_score(labels, alarms),
            "delay": delay.points,
            "missed": delay.missed,
            "false_alarms_a_day": false_alarms_a_day(labels, alarms, period),
        }
    return {
        name: None if value is None or np.isnan(value) else value for name, value in found.items()
    }
