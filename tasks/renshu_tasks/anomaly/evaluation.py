"""After training: choose on the held-out part, measure a part once, write what was found."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from renshu.cli.table import TableWriter
from renshu.messages import say
from renshu_tasks.anomaly.detector import Scores
from renshu_tasks.anomaly.metrics.alarms import detection_delay, false_alarms_a_day
from renshu_tasks.anomaly.metrics.events_f1 import event_f1
from renshu_tasks.anomaly.metrics.points import auc_pr, auc_roc, oracle_point_f1, point_f1
from renshu_tasks.anomaly.metrics.volume import attainable, vus
from renshu_tasks.anomaly.metrics.window import metric_window
from renshu_tasks.anomaly.series import Series, events_of
from renshu_tasks.anomaly.thresholds import Decision, decide
from renshu_tasks.common.files import write_json

if TYPE_CHECKING:
    from renshu_tasks.anomaly.data import SeriesData
    from renshu_tasks.anomaly.module import AnomalyDetector

_COVERAGES = np.linspace(0.5, 1.0, 51)


@dataclass(frozen=True)
class Outcome:
    """What the module said about one part, point by point.

    Attributes:
        series: the part.
        scores: float64 [T], causal, with the points before the part as context.
        contributions: float64 [T, C], or None for a detector whose score is no sum.
        p_values: float64 [T].
        thresholds: float64 [T].
        alarms: bool [T].
    """

    series: Series
    scores: Scores
    contributions: NDArray[np.float64] | None
    p_values: Scores
    thresholds: Scores
    alarms: NDArray[np.bool_]


def score_part(module: AnomalyDetector, data: SeriesData, name: str) -> Scores:
    """Causal scores of a part, float64 [T]; the points before it are looked back at."""
    start, stop = data.parts[name]
    part = data.part(name, context=module.detector.memory - 1)
    return module.detector.score(part.values, causal=True)[-(stop - start) :]


def calibrate(module: AnomalyDetector, data: SeriesData) -> None:
    """Choose the threshold by the false-alarm budget on the held-out part; it sees no label."""
    training = module.training_options
    module.decision = Decision.fit(
        score_part(module, data, "val"),
        training.threshold,
        training.false_alarms,
        training.release,
        training.hold,
    )
    count = len(module.decision.normal)
    if training.threshold == "conformal" and training.false_alarms * (count + 1) < 1:
        say(
            f"{count} held-out points cannot show a false-alarm rate of"
            f" {training.false_alarms:g}: the threshold is their largest score, exceeded with"
            f" probability up to {1 / (count + 1):.2g}; --training.threshold spot extrapolates"
        )


def judge(module: AnomalyDetector, data: SeriesData, name: str) -> Outcome:
    """Scores, p-values, thresholds and alarms of a part."""
    assert module.decision is not None, "calibrate comes first"
    scores = score_part(module, data, name)
    start, stop = data.parts[name]
    contributions = None
    if module.detector.additive and len(data.series.channels) > 1:
        part = data.part(name, context=module.detector.memory - 1)
        contributions = module.detector.contributions(part.values, causal=True)[-(stop - start) :]
    thresholds, alarms = decide(module.decision, scores)
    p_values = module.decision.p_values(scores)
    return Outcome(data.part(name), scores, contributions, p_values, thresholds, alarms)


def evaluate(
    module: AnomalyDetector, data: SeriesData, split: str, run_dir: Path
) -> dict[str, Any]:
    """Measure one part, "val" or "test"; write `run_dir`/evaluation/<split>/; return the figures.

    Writes metrics.json, events.json, predictions.csv and arrays.safetensors.
    """
    from safetensors.numpy import save_file

    outcome = judge(module, data, split)
    assert module.decision is not None
    figures: dict[str, Any] = {
        **measure(outcome, data),
        "alarm_share": float(outcome.alarms.mean()),
        "threshold": float(outcome.thresholds[0]),
        "threshold_kind": module.decision.kind,
        "false_alarm_budget": module.decision.budget,
        "detector": module.detector.name,
    }
    folder = Path(run_dir) / "evaluation" / split
    folder.mkdir(parents=True, exist_ok=True)
    with TableWriter(folder / "predictions.csv") as table:
        start = data.parts[split][0]
        for row in prediction_rows(outcome, start):
            table.write(row)
    arrays = {
        "values": outcome.series.values,
        "scores": outcome.scores,
        "p_values": outcome.p_values,
        "thresholds": outcome.thresholds,
        "alarms": outcome.alarms.astype(np.uint8),
    }
    if outcome.series.labels is not None:
        arrays["labels"] = outcome.series.labels
    if outcome.contributions is not None:
        arrays["contributions"] = outcome.contributions
    save_file(
        {key: np.ascontiguousarray(a) for key, a in arrays.items()}, folder / "arrays.safetensors"
    )
    write_json(folder / "events.json", events(outcome, data.parts[split][0]))
    write_json(folder / "metrics.json", figures)
    return figures


def measure(outcome: Outcome, data: SeriesData) -> dict[str, Any]:
    """The figures against the labels; without labels, or without both kinds of point, few."""
    labels = outcome.series.labels
    if labels is None:
        return {"note": "no labels: nothing can be measured"}
    if labels.min() == labels.max():
        kind = "anomalous" if labels.max() else "normal"
        found = {"note": f"every point of this part is {kind}: no curve can be drawn"}
        if not labels.max():
            found |= {"false_alarms_a_day": _false_alarms(outcome)}
        return found
    window = metric_window(data.series.train)
    areas, best = vus(labels, outcome.scores, window.points), attainable(labels, window.points)
    delay = detection_delay(labels, outcome.alarms)
    return {
        "vus_pr": areas.pr,
        "vus_roc": areas.roc,
        "auc_pr": auc_pr(labels, outcome.scores),
        "auc_roc": auc_roc(labels, outcome.scores),
        "event_f1": event_f1(labels, outcome.alarms).f1,
        "point_f1": point_f1(labels, outcome.alarms).f1,
        "oracle_point_f1": oracle_point_f1(labels, outcome.scores).value,
        "events": delay.found + delay.missed,
        "events_found": delay.found,
        "delay_points": None if np.isnan(delay.points) else delay.points,
        "false_alarms_a_day": _false_alarms(outcome),
        "anomalous_share": float(labels.mean()),
        "vus_window": window.points,
        "vus_window_rule": window.rule,
        "vus_mode": "exact",
        "vus_pr_attainable": best.pr,
        "calibration_error": calibration_error(outcome.p_values[labels == 0]),
        "interval": "one series gives no interval: points next to each other are not independent;"
        " renshu bench anomaly gives intervals over series",
        "coverage": coverage(outcome),
    }


def _false_alarms(outcome: Outcome) -> float | None:
    labels, period = outcome.series.labels, outcome.series.period
    assert labels is not None
    if not labels.any():
        return len(events_of(outcome.alarms.astype(np.uint8))) / (len(labels) * period / 86_400)
    found = false_alarms_a_day(labels, outcome.alarms, period)
    return found if np.isfinite(found) else None


def calibration_error(p_values: Scores) -> float:
    """Largest excess of the share of normal points with p ≤ x over x: 0 if alarms keep a budget."""
    ordered = np.sort(p_values)
    return float(np.max(np.arange(1, len(ordered) + 1) / len(ordered) - ordered, initial=0.0))


def coverage(outcome: Outcome) -> list[dict[str, float]]:
    """Share of wrong decisions among the points farthest from the threshold, by their share."""
    labels = outcome.series.labels
    assert labels is not None
    tiny = np.finfo(float).tiny
    distance = np.abs(
        np.log(np.maximum(outcome.scores, tiny) / np.maximum(outcome.thresholds, tiny))
    )
    wrong = (outcome.alarms != labels.astype(bool))[np.argsort(-distance, kind="stable")]
    counts = np.maximum((_COVERAGES * len(labels)).astype(int), 1)
    risks = np.cumsum(wrong)[counts - 1] / counts
    return [
        {"coverage": float(c), "risk": float(r)} for c, r in zip(_COVERAGES, risks, strict=True)
    ]


def events(outcome: Outcome, start: int) -> dict[str, Any]:
    """Labelled events and alarms, by their rows in the series, and what each alarm points at."""
    alarms = []
    for first, last in events_of(outcome.alarms.astype(np.uint8)):
        top = first + int(outcome.scores[first : last + 1].argmax())
        row: dict[str, Any] = {
            "first": first + start,
            "last": last + start,
            "score": float(outcome.scores[top]),
            "p_value": float(outcome.p_values[first : last + 1].min()),
        }
        if outcome.contributions is not None:
            channel = int(outcome.contributions[top].argmax())
            share = outcome.contributions[top, channel] / max(outcome.scores[top], 1e-300)
            row |= {"channel": outcome.series.channels[channel], "share": float(share)}
        alarms.append(row)
    labelled = [{"first": a + start, "last": b + start} for a, b in outcome.series.events]
    channels = list(outcome.series.channels)
    return {"start": start, "channels": channels, "labelled": labelled, "alarms": alarms}


def prediction_rows(outcome: Outcome, start: int) -> Any:
    """Rows of predictions.csv: row, time, score, p_value, threshold, alarm, label."""
    series = outcome.series
    for i in range(len(series)):
        row: dict[str, Any] = {"row": start + i}
        if series.times is not None:
            row["time"] = series.times[i]
        row |= {
            "score": outcome.scores[i],
            "p_value": round(float(outcome.p_values[i]), 6),
            "threshold": outcome.thresholds[i],
            "alarm": int(outcome.alarms[i]),
        }
        if series.labels is not None:
            row["label"] = int(series.labels[i])
        yield row
