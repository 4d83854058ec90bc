"""The sections that every run has, whatever its task: results, curves, data, settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from renshu.report.charts import Points, lines
from renshu.report.parts import Cell, Chart, Section, Table, Text
from renshu.report.run import Run

MAX_CHARTS = 12
RATE = "learning rate"
LONG_LIST = 12
DEPTH = 20

_STAGED = re.compile(r"(?P<stage>train|val|valid|validation|test)[_/](?P<what>.+)")
_RATE = re.compile(r"lr([-_/].*)?|learning_rate.*")


def estimate(value: Any) -> tuple[float, float | None, float | None] | None:
    """A metric's value and 95 % interval, as evaluation/<split>/metrics.json holds them."""
    if not isinstance(value, dict):
        value = {"value": value}
    middle, low, high = (_number(value.get(key)) for key in ("value", "low", "high"))
    return None if middle is None else (middle, low, high)


def _number(value: Any) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric else None


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
        "All figures",
        [table] if rows else [],
        card=True,
        empty="This run was not evaluated yet."
        + (" renshu evaluate measures it." if run.config else ""),
    )


def curves(run: Run) -> Section:
    """Loss, metrics and learning rate over the steps; training and validation in one chart."""
    groups: dict[str, dict[str, Points]] = {}
    for name, series in run.series.items():
        title, line = _place(name)
        groups.setdefault(title, {})[line] = series
    order = sorted(groups, key=lambda name: (name != "loss", name == RATE, -len(groups[name])))
    charts = [_curve(title, groups[title]) for title in order[:MAX_CHARTS]]
    said = "Values as they were logged, by optimiser step."
    if len(order) > MAX_CHARTS:
        said += f" {len(order) - MAX_CHARTS} more are in metrics.csv."
    return Section("Training", charts, said, empty="No value was logged, so there are no curves.")


def _curve(name: str, series: dict[str, Points]) -> Chart:
    """One chart; training comes first, so that it has the same colour in all."""
    title = name[:1].upper() + name[1:].replace("_", " ")
    ordered = dict(sorted(series.items(), key=lambda line: not line[0].startswith("train")))
    axis = {"rangemode": "tozero", "tickformat": ".2~g"} if name == RATE else {}
    return lines(title, ordered, x="step", layout={"yaxis": axis})


def _place(name: str) -> tuple[str, str]:
    """The chart that a column of metrics.csv belongs to, and its line's name there."""
    if _RATE.fullmatch(name):
        return RATE, name
    match = _STAGED.fullmatch(name)
    if match is None:
        return name, name
    what, line = match["what"], match["stage"]
    for suffix in ("_step", "_epoch"):
        if what.endswith(suffix):
            what, line = what.removesuffix(suffix), f"{line} ({suffix[1:]})"
    return what, line


def timings(run: Run) -> Section:
    """How long training took, by the clock that the newest checkpoint carries."""
    seconds, rows = run.progress.get("seconds"), []
    if isinstance(seconds, int | float) and seconds > 0:
        rows.append(["training, in seconds", float(seconds)])
        counts = {key: run.progress.get(key) for key in ("samples", "batches", "epochs")}
        known = {key: n for key, n in counts.items() if isinstance(n, int) and n > 0}
        rows += [[f"{key} a second", n / seconds] for key, n in known.items() if key != "epochs"]
        rows += [["seconds an epoch", seconds / known["epochs"]]] if "epochs" in known else []
    table = Table("Wall time of the training, validation included", ["what", "value"], rows)
    return Section(
        "Timings",
        [table] if rows else [],
        lead="Up to the newest checkpoint; pauses between interruption and resume are left out.",
        empty="No checkpoint with a clock was found.",
    )


def reproduce(run: Run) -> Section:
    """The command that runs this again."""
    recorded = run.environment.get("command")
    parts = []
    if run.config:
        again = "The same configuration and seed, on the same data, in a new run:"
        parts += [Text(again), Text(command(run), code=True)]
    if recorded:
        parts += [Text("It was started with:"), Text(str(recorded), code=True)]
    return Section("Reproduce", parts, empty="Nothing in the run folder names a command.")


def command(run: Run) -> str:
    """What to type to train the same again."""
    return shlex.join(["renshu", "train", "--config", str(run.path / "config.yaml")])


def data(run: Run) -> Section:
    """What identifies each part of the data."""
    parts = run.environment.get("fingerprint")
    rows = [
        [name, part.get("files"), part.get("bytes"), str(part.get("sha256", "–"))]
        for name, part in (parts.items() if isinstance(parts, dict) else ())
        if isinstance(part, dict)
    ]
    table = Table("Parts of the data", ["part", "files", "bytes", "SHA-256"], rows)
    return Section(
        "Data",
        [table] if rows else [],
        lead="A sum covers every path, size, content and label of a part: equal sums, equal data.",
        card=True,
        empty="No fingerprint of the data was recorded.",
    )


def settings(run: Run) -> Section:
    """Configuration and environment, every value by its key."""
    environment = {k: v for k, v in run.environment.items() if k not in ("command", "fingerprint")}
    parts = {"Configuration": run.config, "Environment": environment}
    tables = [
        Table(caption, ["key", "value"], list(flat(tree)), folded=True)
        for caption, tree in parts.items()
        if tree
    ]
    return Section("Settings", tables, card=True)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Cell]]:
    """Rows of dotted key and value. Long lists and what lies deep are counted, not written."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value and prefix.count(".") < DEPTH:
            yield from flat(value, f"{name}.")
        elif isinstance(value, list) and len(value) <= LONG_LIST and _plain(value):
            yield name, ", ".join(map(str, value))
        elif isinstance(value, dict | list):
            yield name, f"{len(value)} values"
        else:
            yield name, value if value is None or isinstance(value, bool) else str(value)


def _plain(values: list[Any]) -> bool:
    return not any(isinstance(value, dict | list) for value in values)
