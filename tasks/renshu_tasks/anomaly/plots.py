"""The report's sections about a detector, from what `evaluation` left in the run folder."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from renshu.report import Chart, Headline, Section, Table, Text
from renshu.report.charts import Points, bars, lines
from renshu_tasks.common.sections import SHARE, evaluated, readable, risk_by_coverage

SHOWN_CHANNELS = 6
SHOWN_EVENTS = 200
_BUCKETS = 500


@dataclass(frozen=True)
class Evaluation:
    """One evaluated split.

    Attributes:
        folder: evaluation/<split> of the run.
        metrics: metrics.json.
        events: events.json: labelled events and alarms.
        arrays: arrays.safetensors: values [T, C], scores, p_values, thresholds, alarms [T], and
            where there are any labels [T] and contributions [T, C].
    """

    folder: Path
    metrics: dict[str, Any]
    events: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    @property
    def split(self) -> str:
        return self.folder.name

    @property
    def rows(self) -> NDArray[np.int64]:
        """Number of each point in the series."""
        return self.events["start"] + np.arange(len(self.arrays["scores"]))


def sections(run_dir: Path) -> list[Section]:
    """Everything the report says about the evaluation; raises DataError for files it cannot use."""
    if (folder := evaluated(run_dir)) is not None:
        with readable(folder):
            return _sections(folder)
    return [Section("Scores", empty="No evaluation yet: renshu evaluate writes it.")]


def _sections(folder: Path) -> list[Section]:
    metrics, events = (
        json.loads((folder / name).read_text(encoding="utf-8"))
        for name in ("metrics.json", "events.json")
    )
    found = Evaluation(folder, metrics, events, load_file(folder / "arrays.safetensors"))
    measured = [_calibration(found), _abstention(found)] if "coverage" in metrics else []
    return [_scores(found), _alarms(found), *measured, _use(found)]


def _scores(found: Evaluation) -> Section:
    """Values and scores over the same axis; labelled events shaded."""
    arrays, names = found.arrays, found.events["channels"]
    values = {
        name: _thinned(found.rows, arrays["values"][:, i])
        for i, name in enumerate(names[:SHOWN_CHANNELS])
    }
    scores = {
        "score": _thinned(found.rows, arrays["scores"]),
        "threshold": _thinned(found.rows, arrays["thresholds"]),
    }
    layout = {"shapes": _shades(found)}
    more = f" {len(names) - SHOWN_CHANNELS} more channels are not drawn." * (
        len(names) > SHOWN_CHANNELS
    )
    return Section(
        "Scores",
        [
            _wide(lines("Values", values, x="row", layout=layout)),
            _wide(lines("Score and threshold", scores, x="row", layout=layout)),
        ],
        lead="Shaded: labelled anomalies. Drag to zoom, double-click to go back. A score looks at"
        f" its own and earlier points alone.{more}",
        headlines=_headlines(found),
    )


def _wide(chart: Chart) -> Chart:
    return replace(chart, wide=True)


def _headlines(found: Evaluation) -> list[Headline]:
    kinds = {
        "vus_pr": ("VUS-PR", f"window {found.metrics.get('vus_window')}, exact"),
        "auc_pr": ("AUC-PR", "every score a threshold"),
        "event_f1": ("event F1", "at the stored threshold"),
        "false_alarms_a_day": ("false alarms a day", "at the stored threshold"),
    }
    return [
        Headline(f"{found.split.capitalize()} {name}", float(value), note=note)
        for key, (name, note) in kinds.items()
        if isinstance(value := found.metrics.get(key), int | float)
    ]


def _thinned(rows: NDArray[np.int64], values: NDArray[Any]) -> Points:
    """Lowest and highest value of each of 500 stretches: a million points are drawn as fast."""
    if len(values) <= 2 * _BUCKETS:
        return rows.tolist(), values.astype(float).tolist()
    edges = np.linspace(0, len(values), _BUCKETS + 1).astype(int)
    keep = {0, len(values) - 1}
    for start, stop in pairwise(edges.tolist()):
        keep |= {start + int(values[start:stop].argmin()), start + int(values[start:stop].argmax())}
    order = np.array(sorted(keep))
    return rows[order].tolist(), values[order].astype(float).tolist()


def _shades(found: Evaluation) -> list[dict[str, Any]]:
    return [
        {
            "type": "rect",
            "xref": "x",
            "yref": "paper",
            "x0": event["first"] - 0.5,
            "x1": event["last"] + 0.5,
            "y0": 0,
            "y1": 1,
            "fillcolor": "var(--series-4)",
            "opacity": 0.25,
            "line": {"width": 0},
            "layer": "below",
        }
        for event in found.events["labelled"][:SHOWN_EVENTS]
    ]


def _alarms(found: Evaluation) -> Section:
    """Every alarm, and every labelled event with whether it was found."""
    alarms = found.events["alarms"]
    columns = ["first row", "last row", "highest score", "p-value"]
    keys = ["first", "last", "score", "p_value"]
    if alarms and "channel" in alarms[0]:
        columns, keys = [*columns, "most from channel", "its share"], [*keys, "channel", "share"]
    rows = [[alarm[key] for key in keys] for alarm in alarms[:SHOWN_EVENTS]]
    parts: list[Any] = [Table("Alarms", columns, rows, sortable=True)] if rows else []
    labelled = [
        [event["first"], event["last"], "found" if _found(event, alarms) else "missed"]
        for event in found.events["labelled"][:SHOWN_EVENTS]
    ]
    if labelled:
        parts.append(Table("Labelled events", ["first row", "last row", "alarm"], labelled))
    budget = found.metrics["false_alarm_budget"]
    return Section(
        "Alarms",
        parts,
        lead=f"Threshold: {found.metrics['threshold_kind']}, for a false-alarm rate of {budget:g}"
        f" of the normal points, chosen on the held-out part. {len(alarms)} alarms.",
        card=True,
        empty="No point is above the threshold.",
    )


def _found(event: dict[str, Any], alarms: list[dict[str, Any]]) -> bool:
    return any(a["first"] <= event["last"] and a["last"] >= event["first"] for a in alarms)


def _calibration(found: Evaluation) -> Section:
    """How many normal points have a p-value up to each level."""
    p_values = np.sort(found.arrays["p_values"][found.arrays["labels"] == 0])
    levels = np.linspace(0, 1, 101)
    shares = np.searchsorted(p_values, levels, side="right") / len(p_values)
    chart = lines(
        "P-values of normal points",
        {"share": (levels.tolist(), shares.tolist())},
        x="p-value",
        layout={
            "xaxis": SHARE | {"title": {"text": "p-value"}},
            "yaxis": SHARE | {"title": {"text": "share of normal points"}},
        },
        diagonal=True,
    )
    table = [
        [f"{level:g}", float((p_values <= level).mean())] for level in (0.001, 0.01, 0.05, 0.1, 0.5)
    ]
    return Section(
        "Calibration",
        [chart, Table("Normal points by p-value", ["p-value up to", "share"], table)],
        lead="On or below the dotted line the p-values keep what they promise; above it, normal"
        " points of this part are stranger than those held out: the series has changed since.",
    )


def _abstention(found: Evaluation) -> Section:
    """What the error becomes if the points nearest to the threshold are left to a person."""
    chart = risk_by_coverage(found.metrics["coverage"])
    balance = bars(
        "Points",
        ["normal", "anomalous"],
        {
            "labelled": _counts(found.arrays["labels"]),
            "alarm": _counts(found.arrays["alarms"]),
        },
        y="points",
    )
    return Section(
        "Abstention",
        [chart, balance],
        lead="What the error becomes if the points nearest to the threshold are left to a person.",
    )


def _counts(flags: NDArray[Any]) -> list[float]:
    on = int(flags.sum())
    return [len(flags) - on, on]


def _use(found: Evaluation) -> Section:
    """What the detector is for, and where its figures end."""
    names = ", ".join(found.events["channels"][:50])
    interval = found.metrics.get("interval") or found.metrics.get("note", "")
    return Section(
        "Use and limits",
        [
            Text(f"{found.metrics['detector']} scores each point of: {names}. Higher is stranger."),
            Text(
                "It knows what the training part held. What was rare or absent there raises an"
                " alarm, faulty or not; what was there is normal, faulty or not. Train again after"
                " the process has changed: the calibration above shows when."
            ),
            Text(f"Intervals: {interval}." if interval else "No labels, no figures."),
        ],
        card=True,
    )
