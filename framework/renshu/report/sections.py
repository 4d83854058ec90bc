"""The sections that every run has, whatever its task: results, curves, data, settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from renshu.report.charts import Points, lines
from renshu.report.parts import Cell, Section, Table, Text
from renshu.report.run import Run

MAX_CHARTS = 12
LONG_LIST = 12

_STAGED = re.compile(r"(?P<stage>train|val|valid|validation|test)[_/](?P<what>.+)")
_RATE = re.compile(r"lr([-_/].*)?|learning_rate.*")


def estimate(value: Any) -> tuple[float, float | None, float | None] | None:
    """A metric's value and 95 % interval, as evaluation/<split>/metrics.json holds them."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value), None, None
    if isinstance(value, dict) and isinstance(value.get("value"), int | float):
        return float(value["value"]), value.get("low"), value.get("high")
    return None


def results(run: Run) -> Section:
    """Every number of every evaluated split."""
    rows: list[list[Cell]] = []
    for split, metrics in run.evaluation.items():
        for name, value in metrics.items():
            found = estimate(value)
            if found is not None:
                rows.append([split, name, *found])
    table = Table("Measured values", ["split", "metric", "value", "95 % from", "to"], rows)
    return Section(
        "Results",
        [table] if rows else [],
        card=True,
        empty="This run was not evaluated yet: renshu evaluate measures it.",
    )


def curves(run: Run) -> Section:
    """Loss, metrics and learning rate over the steps; training and validation in one chart."""
    groups: dict[str, dict[str, Points]] = {}
    for name, series in run.series.items():
        title, line = _place(name)
        groups.setdefault(title, {})[line] = (series.steps, series.values)
    order = sorted(
        groups, key=lambda title: (title != "loss", title == "learning rate", -len(groups[title]))
    )
    charts = [lines(_title(title), groups[title], x="step") for title in order[:MAX_CHARTS]]
    left = len(order) - len(charts)
    more = f" {left} more are in metrics.csv." if left > 0 else ""
    return Section(
        "Training",
        charts,
        lead=f"Values as they were logged, by optimiser step.{more}" if charts else "",
        empty="No value was logged, so there are no curves.",
    )


def _title(name: str) -> str:
    return name[:1].upper() + name[1:].replace("_", " ")


def _place(name: str) -> tuple[str, str]:
    """The chart that a column of metrics.csv belongs to, and its line's name there."""
    if _RATE.fullmatch(name):
        return "learning rate", name
    match = _STAGED.fullmatch(name)
    if match is None:
        return name, name
    what, line = match["what"], match["stage"]
    for suffix in ("_step", "_epoch"):
        if what.endswith(suffix):
            what, line = what.removesuffix(suffix), f"{line} ({suffix[1:]})"
    return what, line


def reproduce(run: Run) -> Section:
    """The command that runs this again."""
    parts = [Text(command(run), code=True)] if run.config or run.environment else []
    return Section("Reproduce", parts, empty="config.yaml is missing, so no command can be named.")


def command(run: Run) -> str:
    """What to type to train the same again."""
    recorded = run.environment.get("command")
    if isinstance(recorded, str):
        return recorded
    if isinstance(recorded, list):
        return shlex.join(str(word) for word in recorded)
    return shlex.join(
        ["renshu", "train", run.task or "TASK", "--config", str(run.path / "config.yaml")]
    )


def settings(run: Run) -> Section:
    """Configuration and environment, every value by its key."""
    tables = [
        Table(caption, ["key", "value"], rows, folded=True)
        for caption, rows in (
            ("Configuration", list(flat(run.config))),
            ("Environment", list(flat(run.environment))),
        )
        if rows
    ]
    return Section("Settings", tables, card=True)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[list[Cell]]:
    """Rows of dotted key and value. Long lists are counted, not written."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            yield from flat(value, f"{name}.")
        elif isinstance(value, list):
            short = len(value) <= LONG_LIST and not any(isinstance(v, dict | list) for v in value)
            yield [name, ", ".join(map(str, value)) if short else f"{len(value)} values"]
        elif isinstance(value, dict):
            yield [name, None]
        else:
            yield [name, value if value is None or isinstance(value, bool) else str(value)]
