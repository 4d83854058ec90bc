"""Writes report.html, model_card.md and, beside them, the one script that draws the charts."""

from __future__ import annotations

import filecmp
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from renshu.errors import ConfigError, DataError, RenshuError
from renshu.report import sections as common
from renshu.report.card import card
from renshu.report.html import Page
from renshu.report.parts import Headline, Section
from renshu.report.run import Run, read_run
from renshu.task import find_task

SCRIPT = "plotly.min.js"
"""Stands beside each report, so that a run folder opens wherever it is copied to. It has 4.8 MB and
plotly ships no smaller one: the runs of one folder share it as hard links to the same file."""


def write_report(run_dir: str | Path) -> Path:
    """Write `report.html` and `model_card.md` from the files of a run folder.

    Returns the path of report.html. What is missing is named in the report. Raises DataError if
    `run_dir` is not a run folder, ConfigError if plotly is not installed.
    """
    run = read_run(run_dir)
    own = _task_sections(run)
    sections = [common.results(run), common.curves(run), *own]
    sections += [common.reproduce(run), common.settings(run)]
    headlines = [headline for section in own for headline in section.headlines]
    headlines = headlines or _first_values(run)
    title = run.path.resolve().name
    page = Page(run.path, title, _facts(run))
    _share_script(run.path)
    _write(run.path / "model_card.md", card(run, title, headlines, sections))
    _write(run.path / "report.html", page.render(headlines, run.problems, sections))
    return run.path / "report.html"


def _task_sections(run: Run) -> list[Section]:
    """What the run's task adds. A fault of its files is noted; the rest of the report stands."""
    if run.task is None:
        return []
    try:
        return list(find_task(run.task).load("report")(run.path))
    except RenshuError as error:
        run.problems.append(f"The sections of {run.task}: {error}")
        return []


def _first_values(run: Run, limit: int = 4) -> list[Headline]:
    """Without a task's choice: the first values of the last evaluated split."""
    found = []
    for split, metrics in reversed(run.evaluation.items()):
        for name, value in metrics.items():
            one = common.estimate(value)
            if one is not None:
                found.append(Headline(f"{split} {name}", *one))
    return found[:limit]


def _facts(run: Run) -> list[str]:
    """The line under the title."""
    facts = [run.task.replace("_", " ") if run.task else "run of a script"]
    if run.counters:
        facts.append(f"{run.counters['step'] + 1:.0f} steps")
    return facts


def _share_script(run_dir: Path) -> None:
    """Put plotly's script beside the report: as a link to another run's, else as a copy."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the report needs plotly", mend='pip install "renshu[report]"')
    source = Path(found.submodule_search_locations[0], "package_data", SCRIPT)
    target = run_dir / SCRIPT
    if _same(target, source):
        return
    for other in sorted(run_dir.resolve().parent.glob(f"*/{SCRIPT}")):
        if _same(other, source) and _placed(target, lambda new, other=other: os.link(other, new)):
            return
    _placed(target, lambda new: shutil.copyfile(source, new), last=True)


def _same(file: Path, source: Path) -> bool:
    return file.is_file() and not file.is_symlink() and filecmp.cmp(file, source, shallow=False)


def _write(path: Path, text: str) -> None:
    _placed(path, lambda new: new.write_text(text, encoding="utf-8"), last=True)


def _placed(path: Path, make: Callable[[Path], object], *, last: bool = False) -> bool:
    """Make a file under a temporary name, then rename it: a reader finds the old one or the new."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        new.unlink(missing_ok=True)
        make(new)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        if last:
            raise DataError(f"cannot be written: {error.strerror}", where=path) from error
        return False
    return True
