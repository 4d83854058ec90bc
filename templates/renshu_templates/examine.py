"""What `renshu doctor` says about a project: its configuration, version and open conflicts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.cli.options import flatten, list_options
from renshu.cli.yaml_file import read_mapping
from renshu.errors import RenshuError
from renshu.task import find_task
from renshu_templates.apply import JOURNAL
from renshu_templates.merge import has_marks

if TYPE_CHECKING:
    from renshu_templates.template import Template

Finding = tuple[str, str, str, str | None]
"""What was looked at; ok, note or broken; what there is; the command or step that mends it."""


def examine(template: Template, project: Path, stored: Mapping[str, Any]) -> Iterator[Finding]:
    """All findings; `stored` is the content of the project's `.renshu.yaml`."""
    yield _version(template.version, str(stored.get("version")))
    if (project / JOURNAL).is_dir():
        yield "upgrade", "broken", "one was stopped in the middle", "renshu upgrade finishes it"
    yield _configuration(project / "config.yaml", template.about.get("task"))
    yield _conflicts(project)


def _version(here: str, made: str) -> Finding:
    found = f"made by renshu {made}"
    if made == here:
        return "template", "ok", found, None
    return "template", "note", f"{found}, this is {here}", "renshu upgrade --dry-run"


def _configuration(file: Path, task: str | None) -> Finding:
    """Readable, and with keys that its task has; values are checked when it trains."""
    try:
        values = read_mapping(file)
        if task is not None:
            options = list_options(find_task(task))
            flatten({key: v for key, v in values.items() if key != "ckpt_path"}, options, str(file))
    except RenshuError as error:
        where = f" ({error.where})" if error.where else ""
        return "configuration", "broken", f"{error.what}{where}", error.mend or "edit config.yaml"
    return "configuration", "ok", str(file), None


def _conflicts(project: Path) -> Finding:
    """Files of the project, not of its runs or environment, in which a conflict is open."""
    patterns = ("*", ".*", "*/*.py", ".github/*/*", "deploy/*")
    files = {file for pattern in patterns for file in project.glob(pattern) if file.is_file()}
    marked = sorted(
        file.relative_to(project).as_posix()
        for file in files
        if file.stat().st_size < 2**20 and has_marks(file.read_text("utf-8", errors="replace"))
    )
    if not marked:
        return "conflicts", "ok", "none", None
    mend = "choose what holds and remove the lines of <<<<<<<, |||||||, ======= and >>>>>>>"
    return "conflicts", "broken", ", ".join(marked), mend
