"""The kinds of chart that reports use, as plotly's plain dictionaries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from renshu.report.parts import Chart, Table

Points = tuple[Sequence[float], Sequence[float]]
"""x and y of one line; a NaN is a gap."""

MAX_POINTS = 1_000
MAX_ROWS = 200


def series_colour(index: int) -> str:
    """The page's colour of the index-th line or bar."""
    return f"var(--series-{index % 6 + 1})"


def tick(label: object, length: int = 18) -> str:
    """A label short enough for an axis."""
    text = " ".join(str(label).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def thin(points: Points, limit: int = MAX_POINTS) -> Points:
    """At most `limit` points that keep each stretch's lowest and highest value, and its gaps."""
    xs, ys = points
    if len(xs) <= limit:
        return points
    width = 2 * len(xs) / limit
    keep: set[int] = {0, len(xs) - 1}
    for bucket in range(limit // 2):
        stretch = range(int(bucket * width), min(int((bucket + 1) * width), len(xs)))
        finite = [i for i in stretch if math.isfinite(ys[i])]
        if finite:
            keep |= {min(finite, key=ys.__getitem__), max(finite, key=ys.__getitem__)}
        if len(finite) < len(stretch):
            keep.add(next(i for i in stretch if not math.isfinite(ys[i])))
    order = sorted(keep)
    return [xs[i] for i in order], [ys[i] for i in order]


def lines(
    title: str,
    series: Mapping[str, Points],
    *,
    x: str,
    y: str = "",
    alt: str = "",
    layout: Mapping[str, Any] | None = None,
    diagonal: bool = False,
) -> Chart:
    """Lines over a common axis; `diagonal` adds the dotted line y = x from 0 to 1."""
    drawn = {name: thin(points) for name, points in series.items()}
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(xs) <= 40 else "lines",
            "name": tick(name, 32),
            "x": list(xs),
            "y": list(ys),
            "line": {"color": series_colour(index), "width": 2},
            "marker": {"size": 5},
        }
        for index, (name, (xs, ys)) in enumerate(drawn.items())
    ]
    if diagonal:
        traces.append(_diagonal())
    return Chart(
        title=title,
        alt=alt or f"{title}: {', '.join(series)} over {x}.",
        traces=traces,
        layout=_axes(x, y) | {"showlegend": len(traces) > 1} | dict(layout or {}),
        table=_line_table(title, drawn, x),
    )


def _diagonal() -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "ideal",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": "var(--muted)", "dash": "dot", "width": 1.5},
        "hoverinfo": "skip",
    }


def bars(
    title: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[float | None]],
    *,
    y: str,
    alt: str = "",
    wide: bool = False,
    every: int = 1,
) -> Chart:
    """Groups of bars, one each label, of which the axis names every so many.

    The axis is numeric, so that labels of the same name stay apart.
    """
    places = list(range(len(labels)))
    traces = [
        {
            "type": "bar",
            "name": tick(name, 32),
            "x": places,
            "y": list(values),
            "marker": {"color": series_colour(index)},
            "customdata": [str(label) for label in labels],
            "hovertemplate": "%{customdata}: %{y}",
        }
        for index, (name, values) in enumerate(groups.items())
    ]
    ticks = {"tickvals": places[::every], "ticktext": [tick(label) for label in labels[::every]]}
    if len(labels) > 40:
        ticks = {"showticklabels": False}
    return Chart(
        title=title,
        alt=alt or f"{title}: {y} of {len(labels)} labels.",
        traces=traces,
        layout={"xaxis": ticks, "yaxis": {"title": {"text": y}}, "showlegend": len(groups) > 1},
        table=Table(title, ["", *groups], list(zip(labels, *groups.values(), strict=True))),
        wide=wide,
    )


def heatmap(
    title: str,
    labels: Sequence[str],
    counts: Sequence[Sequence[int]],
    *,
    x: str,
    y: str,
    alt: str,
) -> Chart:
    """A square table of counts, each row coloured by its shares. Written in up to 20 columns."""
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    places = list(range(len(labels)))
    small = len(labels) <= 20
    axis = {"tickvals": places, "ticktext": [tick(label, 14) for label in labels]}
    if len(labels) > 60:
        axis = {"showticklabels": False}
    axis |= {"showgrid": False, "zeroline": False, "constrain": "domain", "automargin": True}
    trace = {
        "type": "heatmap",
        "x": places,
        "y": places,
        "z": shares,
        "zmin": 0,
        "zmax": 1,
        "text": [[str(count) if count else "" for count in row] for row in counts],
        "customdata": [
            [f"{y} {tick(a)}, {x} {tick(b)}: {count}" for b, count in zip(labels, row, strict=True)]
            for a, row in zip(labels, counts, strict=True)
        ],
        "hovertemplate": "%{customdata} (%{z:.1%})",
        "colorscale": [[0, "var(--heat-low)"], [1, "var(--heat-high)"]],
        "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0},
        "xgap": 1 if small else 0,
        "ygap": 1 if small else 0,
    } | ({"texttemplate": "%{text}"} if small else {})
    rows = [[label, *row] for label, row in zip(labels, counts, strict=True)]
    return Chart(
        title=title,
        alt=alt,
        traces=[trace],
        layout={
            "xaxis": axis | {"title": {"text": x}},
            "yaxis": axis | {"title": {"text": y}, "autorange": "reversed"},
        },
        table=Table(f"{title}: {y} in rows, {x} in columns", ["", *labels], rows),
        height=min(760, max(360, 120 + 34 * len(labels))),
        wide=len(labels) > 12,
    )


def _axes(x: str, y: str) -> dict[str, Any]:
    return {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}


def _line_table(title: str, series: Mapping[str, Points], x: str) -> Table:
    """The drawn numbers in long form, thinned again where they are many."""
    rows = [
        [name, float(a), float(b)]
        for name, points in series.items()
        for a, b in zip(*thin(points, max(2, MAX_ROWS // max(len(series), 1))), strict=True)
    ]
    return Table(title, ["series", x, "value"], rows)
