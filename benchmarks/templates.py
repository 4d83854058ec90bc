"""Projects from templates: how fast they are made, how much there is to read, how soon they train.

`python benchmarks/templates.py [--quick] [--json FILE]`. Lines are those of a project with all its
defaults, as _project_lines.py counts them. Quick takes one round and trains the smallest project.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import _table
from _project_lines import PEERS, lines

FIRST_STEP = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]


def templates() -> dict[str, Any]:
    """Every installed template."""
    points = entry_points(group="renshu.templates")
    return {point.name: point.load() for point in sorted(points, key=lambda point: point.name)}


def command(*arguments: str, cwd: Path) -> float:
    """Seconds of one process; ends the benchmark if it fails."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{arguments} failed:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
    return time.perf_counter() - start


def until_first_step(name: str) -> float:
    """Seconds of the two commands: the project is made, and its training does one step.

    A batch is validated after that step and the process ends, so this is above what one waits for.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = command("-m", "renshu", "new", name, "project-one", cwd=Path(folder))
        project = Path(folder, "project-one")
        return made + command("-m", "project_one.train", *FIRST_STEP, cwd=project)


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows."""
    rounds = 1 if quick else 9
    found = templates()
    answers = {name: one.complete({"name": "project-one"}) for name, one in found.items()}
    next(iter(found.values())).files(next(iter(answers.values())))  # imports cookiecutter
    slowest = 0.0
    for name, template in found.items():
        seconds = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                template.create(answers[name], Path(folder))
                seconds.append(time.perf_counter() - start)
        slowest = max(slowest, statistics.median(seconds))
    yield _table.Row("making a project, the slowest template", "s", renshu=slowest, reach="<= 0.5")
    with tempfile.TemporaryDirectory() as folder:
        seconds = [
            command("-m", "renshu", "new", "blank", f"project-{n}", cwd=Path(folder))
            for n in range(rounds)
        ]
    yield _table.Row("the whole command renshu new", "s", renshu=statistics.median(seconds))
    for name, template in found.items():
        yield _table.Row(
            f"{name}: lines of Python and YAML in the project",
            "lines",
            renshu=lines(template.files(answers[name])),
            reach="<= 250",
        )
    ours = lines(found["image_classification"].files(answers["image_classification"]))
    for peer in PEERS:
        what = f"lines of an image classifier's project, beside {peer.name}"
        yield _table.Row(what, "lines", ours, peer.lines, "counted", reach="< peer")
    for name in found:
        what = f"{name}: renshu new until the first training step is over"
        if quick and name != "blank":
            yield _table.stored(__file__, what, "s", reach="<= 60")
        else:
            yield _table.Row(what, "s", renshu=until_first_step(name), reach="<= 60")


if __name__ == "__main__":
    _table.main(__file__, measure)
