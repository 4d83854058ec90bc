"""Writes report.html, model_card.md and, beside them, the one script that draws the charts."""

from __future__ import annotations

import filecmp
import importlib.util
import math
import os
import shutil
from pathlib import Path

from renshu.errors import ConfigError, DataError, RenshuError
from renshu.loggers.files import write_atomically
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
    sections = [common.curves(run), *own, common.results(run), common.timings(run)]
    sections += [common.data(run), common.reproduce(run), common.settings(run)]
    headlines = [headline for section in own for headline in section.headlines]
    headlines = headlines or _first_values(run)
    title = run.path.resolve().name
    page = Page(run.path, title, _facts(run))
    try:
        share_script(run.path)
        text = card(run, title, headlines, sections)
        write_atomically(run.path / "model_card.md", [text])
        report = run.path / "report.html"
        write_atomically(report, [page.render(headlines, run.problems, sections)])
    except OSError as error:
        raise DataError(
            f"the report cannot be written: {error.strerror}", where=run.path
        ) from error
    return report


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
    step, epoch = run.counters.get("step", math.nan), run.counters.get("epoch", math.nan)
    if math.isfinite(step + epoch):
        facts.append(f"{step + 1:.0f} steps in {epoch + 1:.0f} epochs")
    known = dict(common.flat(run.environment))
    if isinstance(known.get("time"), str):
        known["time"] = str(known["time"])[:16].replace("T", " ") + " UTC"
    names = {"time": "started", "seed": "seed", "packages.torch": "torch", "git.commit": "commit"}
    found = ((name, str(known[key])) for key, name in names.items() if known.get(key) is not None)
    return facts + [f"{name} {value[:25]}" for name, value in found]


def share_script(run_dir: Path) -> None:
    """Put plotly's script beside the report: as a link to another run's, else as a copy."""
    found = importlib.util.find_spec("plotly")
    if found is None or not found.submodule_search_locations:
        raise ConfigError("the report needs plotly", mend='pip install "renshu[report]"')
    source = Path(found.submodule_search_locations[0], "package_data", SCRIPT)
    target = run_dir / SCRIPT
    if _same(target, source):
        return
    new = target.with_name(f".{SCRIPT}.{os.getpid()}")
    new.unlink(missing_ok=True)
    others = sorted(run_dir.resolve().parent.glob(f"*/{SCRIPT}"))
    twin = next((other for other in others if _same(other, source)), None)
    if twin is None or not _linked(new, twin):
        shutil.copyfile(source, new)
    new.replace(target)


def _linked(new: Path, twin: Path) -> bool:
    """Whether a hard link could be made; some file systems have none."""
    try:
        new.hardlink_to(twin)
    except OSError:
        return False
    return True


def _same(file: Path, source: Path) -> bool:
    return file.is_file() and not file.is_symlink() and filecmp.cmp(file, source, shallow=False)
