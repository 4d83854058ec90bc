"""Reads a run folder. What is missing or broken is noted, so that the report can say so."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from renshu.cli.yaml_file import read_mapping
from renshu.errors import ConfigError, DataError

Points = tuple[list[float], list[float]]

COUNTERS = ("epoch", "step", "samples")
"""The first columns of metrics.csv: where in the run a row stands."""


@dataclass(frozen=True)
class Run:
    """The files of a run folder, read.

    Attributes:
        path: the folder.
        config: config.yaml.
        environment: environment.json.
        series: the columns of metrics.csv by name: steps and values, where there is one. NaN stays.
        counters: the last row's epoch, step and samples.
        evaluation: evaluation/<split>/metrics.json by split.
        progress: how far the newest checkpoint's run had come, its seconds among it.
        problems: what is missing or could not be read, one sentence each.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    series: dict[str, Points]
    counters: dict[str, float]
    evaluation: dict[str, dict[str, Any]]
    progress: dict[str, Any]
    problems: list[str]

    @property
    def task(self) -> str | None:
        """The task's name, if the run was started for one."""
        name = self.config.get("task")
        return name if isinstance(name, str) else None


def read_run(run_dir: str | Path) -> Run:
    """Read a run folder; raises DataError if there is none or it holds none of a run's files."""
    path = Path(run_dir)
    if not path.is_dir():
        raise DataError("there is no run folder here", where=path, mend="look below runs/")
    names = ("config.yaml", "metrics.csv", "environment.json")
    if not any((path / name).is_file() for name in names):
        raise DataError(
            "this folder is not a run",
            where=path,
            allowed=f"a folder with {', '.join(names)}",
            mend="give the folder of one run, such as runs/<name>",
        )
    problems: list[str] = []
    series, counters = _read_metrics(path / "metrics.csv", problems)
    return Run(
        path=path,
        config=_read_mapping(path / "config.yaml", problems),
        environment=_read_mapping(path / "environment.json", problems),
        series=series,
        counters=counters,
        evaluation={
            file.parent.name: _read_mapping(file, problems, root=path)
            for file in sorted(path.glob("evaluation/*/metrics.json"))
        },
        progress=_read_progress(path),
        problems=problems,
    )


def _read_progress(path: Path) -> dict[str, Any]:
    """The counts and the clock of the newest checkpoint; {} without one that can be read."""
    steps = {}
    for file in path.glob("checkpoints/*/manifest.json"):
        step = _read_mapping(file, []).get("step")
        steps[file.parent] = step if isinstance(step, int) else -1
    if not steps:
        return {}
    state = _read_mapping(max(steps, key=steps.__getitem__) / "state.json", []).get("state")
    progress = state.get("progress") if isinstance(state, dict) else None
    return progress if isinstance(progress, dict) else {}


def _read_mapping(file: Path, problems: list[str], root: Path | None = None) -> dict[str, Any]:
    """A YAML or JSON file that holds a mapping; {} with a note otherwise."""
    name = file.relative_to(root or file.parent).as_posix()
    try:
        if file.suffix == ".yaml":
            return read_mapping(file)
        value = json.loads(file.read_text(encoding="utf-8"), parse_int=_whole)
    except FileNotFoundError:
        problems.append(f"{name} is missing.")
        return {}
    except ConfigError as error:
        problems.append(f"{name}: {error.what}." if file.exists() else f"{name} is missing.")
        return {}
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"{name} cannot be read: {error}")
        return {}
    if not isinstance(value, dict):
        problems.append(f"{name} holds a {type(value).__name__} where names and values are needed.")
        return {}
    return value


def _whole(digits: str) -> float:
    """An integer; one that no float can hold is infinite."""
    return int(digits) if len(digits) < 300 else float("inf")


def _read_metrics(file: Path, problems: list[str]) -> tuple[dict[str, Points], dict[str, float]]:
    """Every metric's series and the last counters. A last line without its end is not read."""
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        problems.append("metrics.csv is missing: there are no curves.")
        return {}, {}
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if len(rows) < 2:
        problems.append("metrics.csv holds no values yet: there are no curves.")
        return {}, {}
    head = [name.removeprefix("'") for name in rows[0]]  # a guard against spreadsheets' formulas
    series, counters, broken = {}, {}, 0
    for row in rows[1:]:
        try:
            values = {name: float(cell) for name, cell in zip(head, row, strict=True) if cell != ""}
        except ValueError:
            broken += 1
            continue
        counters = {name: values.get(name, float("nan")) for name in COUNTERS}
        for name, value in values.items():
            if name not in COUNTERS:
                steps, points = series.setdefault(name, ([], []))
                steps.append(counters["step"])
                points.append(value)
    if broken:
        problems.append(f"metrics.csv: {broken} broken row(s) left out.")
    return series, counters
