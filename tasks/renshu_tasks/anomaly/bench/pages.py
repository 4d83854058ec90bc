"""A page for a series: values, labelled events with the metric's buffer, and all scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from renshu.loggers.files import write_atomically
from renshu.report import Chart, Section, Table
from renshu.report.charts import thin
from renshu.report.html import Page
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.bench.stored import file_name, read_scores
from renshu_tasks.anomaly.detectors import TRIVIAL
from renshu_tasks.anomaly.lint import lint
from renshu_tasks.anomaly.metrics.events import Scores
from renshu_tasks.anomaly.series import Series

DRAWN = 20_000
"""A line of more points keeps the lowest and highest of each stretch."""

CHANNELS = 4


def write_page(folder: Path, name: str, series: Series, rows: Sequence[Row]) -> Path:
    """Write series-<name>.html beside the leaderboard; returns its path."""
    own = [row for row in rows if row["series"] == name]
    scored = [row for row in own if row.get("reason") is None]
    window = scored[0]["window"]
    facts = [
        scored[0]["origin"],
        f"{len(series)} points, the first {series.train_end} for training",
        f"{len(series.events)} events",
        f"window {window}: {scored[0]['window_rule']}",
    ]
    sections = [
        Section("Values and scores", [_chart(folder, series, scored, window)], _LEAD),
        Section("Figures", [_figures(own)]),
        Section("Events", [_events(series)]),
        Section("Flaws", [_flaws(series)] if lint(series) else [], empty="No flaw was found."),
    ]
    target = folder / f"series-{file_name(name)}.html"
    write_atomically(target, [Page(folder, name, facts).render([], [], sections)])
    return target


_LEAD = (
    "Drag to zoom, double click to see all. Darker stretches are labelled, lighter ones the buffer"
    " of the widest window of VUS. Each detector's first run; scores are scaled to 0 to 1 for the"
    " picture, which changes no figure. Beside others, baselines are drawn when their name is"
    " clicked."
)


def _chart(folder: Path, series: Series, rows: Sequence[Row], window: int) -> Chart:
    traces = [
        _line(name, np.arange(len(series)), series.values[:, i], "y")
        for i, name in enumerate(series.channels[:CHANNELS])
    ]
    first = {row["detector"]: row for row in reversed(rows) if row["seed"] == 0}
    learned = first.keys() - set(TRIVIAL)
    for detector, row in sorted(first.items()):
        scores, _ = read_scores(folder, row["key"])
        places = np.arange(series.train_end, len(series))
        hidden = {"visible": "legendonly"} if learned and detector in TRIVIAL else {}
        traces.append(_line(detector, places, _unit(scores), "y2") | hidden)
    shapes = [
        _span(low, high, opacity)
        for start, stop in series.events
        for low, high, opacity in (
            (start - window // 2 - 0.5, stop + window // 2 + 0.5, 0.12),
            (start - 0.5, stop + 0.5, 0.3),
        )
    ]
    return Chart(
        "Values above, scores below",
        alt=f"{series.name}: values and the scores of {len(first)} detectors over rows.",
        traces=traces,
        layout={
            "xaxis": {"title": {"text": "row"}, "anchor": "y2"},
            "yaxis": {"domain": [0.52, 1]},
            "yaxis2": {"domain": [0, 0.46], "range": [-0.03, 1.03]},
            "shapes": shapes,
            "hovermode": "x",
        },
        table=_events(series),
        height=560,
        wide=True,
    )


def _line(name: str, places: np.ndarray, values: Scores, axis: str) -> dict[str, Any]:
    xs, ys = thin((places.tolist(), values.tolist()), DRAWN)
    trace = {"type": "scatter", "mode": "lines", "name": name, "x": xs, "y": ys, "yaxis": axis}
    return trace | {"line": {"width": 1}}


def _unit(scores: Scores) -> Scores:
    low, high = scores.min(), scores.max()
    return (scores - low) / (high - low) if high > low else np.zeros(len(scores))


def _span(low: float, high: float, opacity: float) -> dict[str, Any]:
    place = {"type": "rect", "xref": "x", "yref": "paper", "x0": low, "x1": high, "y0": 0, "y1": 1}
    colour = {"fillcolor": "var(--series-2)", "opacity": opacity, "line": {"width": 0}}
    return place | colour | {"layer": "below"}


def _events(series: Series) -> Table:
    body = [[first, last, last - first + 1] for first, last in series.events]
    return Table("Labelled events", ["first row", "last row", "points"], body)


def _figures(rows: Sequence[Row]) -> Table:
    names = ["vus_pr", "vus_pr_max", "auc_pr", "event_f1", "affiliation_f1", "delay", "seconds"]
    body = [
        [row["detector"], row["seed"], *(row.get(name) for name in names), row.get("reason") or ""]
        for row in rows
    ]
    return Table("Every run", ["detector", "seed", *names, "reason"], body, sortable=True)


def _flaws(series: Series) -> Table:
    return Table("Flaws", ["check", "what"], [[one.code, one.what] for one in lint(series)])
