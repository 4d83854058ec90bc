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
MAX_TICKS = 40


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
    layout: Mapping[str, Any] | None = None,
    diagonal: bool = False,
) -> Chart:
    """Lines over a common axis; `diagonal` adds the dotted line y = x from 0 to 1."""
    drawn = {name: thin(points) for name, points in series.items()}
    traces = [_line(tick(name, 32), *points) for name, points in drawn.items()]
    if diagonal:
        dots = {"color": "var(--muted)", "dash": "dot"}
        traces.append(_line("ideal", [0, 1], [0, 1]) | {"line": dots, "mode": "lines"})
    rows = [
        [name, float(a), float(b)]
        for name, points in drawn.items()
        for a, b in zip(*thin(points, max(2, MAX_ROWS // len(drawn))), strict=True)
    ]
    return Chart(
        title,
        alt=f"{title}: {', '.join(series)} over {x}.",
        traces=traces,
        layout={"xaxis": {"title": {"text": x}}, "showlegend": len(traces) > 1, **(layout or {})},
        table=Table(title, ["series", x, "value"], rows),
    )


def _line(name: str, xs: Sequence[float], ys: Sequence[float]) -> dict[str, Any]:
    mode = "lines+markers" if len(xs) <= 40 else "lines"
    return {"type": "scatter", "mode": mode, "name": name, "x": list(xs), "y": list(ys)}


def bars(
    title: str,
    labels: Sequence[str],
    groups: Mapping[str, Sequence[float | None]],
    *,
    y: str,
    wide: bool = False,
    every: int = 1,
) -> Chart:
    """Groups of bars, one each label, of which the axis names every so many.

    The axis is numeric, so that labels of the same name stay apart.
    """
    places = list(range(len(labels)))
    label = {"customdata": list(map(str, labels)), "hovertemplate": "%{customdata}: %{y}"}
    traces = [
        {"type": "bar", "name": tick(name, 32), "x": places, "y": list(values), **label}
        for name, values in groups.items()
    ]
    axis = {"tickvals": places[::every], "ticktext": [tick(one) for one in labels[::every]]}
    return Chart(
        title,
        alt=f"{title}: {y} of {len(labels)} labels.",
        traces=traces,
        layout={
            "xaxis": axis if len(labels) <= MAX_TICKS else {"showticklabels": False},
            "yaxis": {"title": {"text": y}},
            "showlegend": len(groups) > 1,
        },
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
    names, places = [tick(label, 14) for label in labels], list(range(len(labels)))
    trace = {
        "type": "heatmap",
        "x": places,
        "y": places,
        "z": [[count / max(sum(row), 1) for count in row] for row in counts],
        "text": [[count or "" for count in row] for row in counts],
        "texttemplate": "%{text}" if len(labels) <= 20 else "",
        "customdata": [
            [f"{y} {a}, {x} {b}: {count}" for b, count in zip(names, row, strict=True)]
            for a, row in zip(names, counts, strict=True)
        ],
    }
    axis = {"tickvals": places, "ticktext": names, "showgrid": False, "zeroline": False}
    rows = [[label, *row] for label, row in zip(labels, counts, strict=True)]
    return Chart(
        title,
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
