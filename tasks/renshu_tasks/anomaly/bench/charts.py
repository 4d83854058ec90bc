"""The leaderboard's charts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from renshu.report import Chart, Table
from renshu.report.charts import bars
from renshu_tasks.anomaly.bench.figures import FIGURES
from renshu_tasks.anomaly.bench.ranks import Ranks
from renshu_tasks.anomaly.bench.table import Standing
from renshu_tasks.anomaly.metrics.events import Scores

_INK, _BAR = "var(--series-1)", "var(--series-2)"


def intervals(ranked: Sequence[Standing], figure: str) -> Chart:
    """Means with their intervals, the best on top."""
    ordered = list(reversed(ranked))
    error: dict[str, Any] = {
        "type": "data",
        "symmetric": False,
        "array": [0 if one.high is None else one.high - one.value for one in ordered],
        "arrayminus": [0 if one.low is None else one.value - one.low for one in ordered],
        "color": _INK,
    }
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": [one.value for one in ordered],
        "y": [one.detector for one in ordered],
        "error_x": error,
        "marker": {"size": 8, "color": _INK},
        "hovertemplate": "%{y}: %{x:.3f}<extra></extra>",
    }
    title = f"{FIGURES[figure]}, 95 % over series"
    rows = [[one.detector, one.value, one.low, one.high] for one in ranked]
    return Chart(
        title,
        alt=f"{title}: {ranked[0].detector} is first with {ranked[0].value:.3f}.",
        traces=[trace],
        layout={"showlegend": False, "xaxis": {"rangemode": "tozero"}},
        table=Table(title, ["detector", "mean", "95 % from", "to"], rows),
        height=100 + 28 * len(ranked),
    )


def critical_difference(ranks: Ranks) -> Chart:
    """Mean ranks on a line, names above, and bars that join what does not differ."""
    names, means = list(ranks.names), list(ranks.means)
    count = len(names)
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "markers+text",
            "x": means,
            "y": [1 + i for i in range(count)],
            "text": [f" {name} ({mean:.2f})" for name, mean in zip(names, means, strict=True)],
            "textposition": "middle right",
            "marker": {"size": 8, "color": _INK},
            "hovertemplate": "%{text}<extra></extra>",
            "cliponaxis": False,
        }
    ]
    for level, (first, last) in enumerate(ranks.groups):
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [means[first], means[last]],
                "y": [-0.3 - 0.5 * level] * 2,
                "line": {"width": 6, "color": _BAR},
                "hovertemplate": f"{names[first]} to {names[last]}<extra></extra>",
            }
        )
    drops = [
        {
            "type": "line",
            "x0": mean,
            "x1": mean,
            "y0": -0.3 - 0.5 * len(ranks.groups),
            "y1": 1 + i,
            "line": {"width": 1, "color": "var(--line-strong)"},
            "layer": "below",
        }
        for i, mean in enumerate(means)
    ]
    title = f"Mean ranks; critical difference {ranks.critical:.2f}"
    return Chart(
        title,
        alt=f"{title}: {names[0]} has the best mean rank, {means[0]:.2f}.",
        traces=traces,
        layout={
            "showlegend": False,
            "shapes": drops,
            "xaxis": {"title": {"text": "mean rank, 1 is best"}, "range": [0.7, count + 1.5]},
            "yaxis": {"visible": False},
        },
        table=Table(title, ["detector", "mean rank"], list(zip(names, means, strict=True))),
        height=160 + 30 * count,
        wide=True,
    )


def cost(ranked: Sequence[Standing], figure: str) -> Chart:
    """Accuracy over time, on a logarithmic axis."""
    timed = [one for one in ranked if one.seconds]
    trace = {
        "type": "scatter",
        "mode": "markers+text",
        "x": [one.seconds for one in timed],
        "y": [one.value for one in timed],
        "text": [one.detector for one in timed],
        "textposition": "top center",
        "marker": {"size": 9, "color": _INK},
        "hovertemplate": "%{text}: %{y:.3f} in %{x:.3g} s<extra></extra>",
        "cliponaxis": False,
    }
    title = f"{FIGURES[figure]} over seconds a series"
    return Chart(
        title,
        alt=f"{title}, of {len(timed)} detectors.",
        traces=[trace],
        layout={
            "showlegend": False,
            "xaxis": {"type": "log", "dtick": 1, "title": {"text": "seconds a series"}},
            "yaxis": {"rangemode": "tozero"},
        },
        table=Table(
            title,
            ["detector", "seconds", figure],
            [[one.detector, one.seconds, one.value] for one in timed],
        ),
        height=420,
        wide=True,
    )


def groups(names: Sequence[str], detectors: Sequence[str], means: Scores, figure: str) -> Chart:
    """A group of bars for each data set."""
    columns = {
        detector: [None if value != value else value for value in column]
        for detector, column in zip(detectors, means.T.tolist(), strict=True)
    }
    return bars(f"{FIGURES[figure]} by data set", names, columns, y=figure, wide=True)
