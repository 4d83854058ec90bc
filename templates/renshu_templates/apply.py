"""An upgrade is written whole: what was begun is finished, even after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path, PurePosixPath

from renshu.errors import ConfigError
from renshu_templates import git
from renshu_templates.upgrade import ANSWERS, Change

JOURNAL = ".renshu-upgrade"
"""Folder in a project while an upgrade is written."""


def apply(changes: list[Change], project: Path) -> None:
    """Write what an upgrade found.

    All contents lie in one folder before the first file is touched; its last rename is the moment
    from which the upgrade holds. The file of answers, which names the version, comes last.
    """
    written = [change for change in changes if change.kind != "kept"]
    written.sort(key=lambda change: change.path == ANSWERS)
    prepared = _prepared(project)
    try:
        shutil.rmtree(prepared, ignore_errors=True)
        prepared.mkdir()
        steps = []
        for number, change in enumerate(written):
            steps.append([None if change.content is None else str(number), change.path])
            if change.content is not None:
                (prepared / str(number)).write_bytes(change.content)
        (prepared / "steps.json").write_text(json.dumps(steps), encoding="utf-8")
        prepared.rename(project / JOURNAL)
        finish(project)
    except OSError as error:
        said = f"the upgrade cannot be written: {error.strerror}"
        mend = "make it writable, then `renshu upgrade` again"
        raise ConfigError(said, where=error.filename, mend=mend) from error
    for change in written:
        if change.kind == "conflict":
            git.show_conflict(project, change.path, change.sides)


def finish(project: Path) -> bool:
    """Do what an upgrade that was stopped had left to do; whether there was such a one.

    Raises ConfigError, before anything is touched, for a journal that no upgrade wrote.
    """
    journal = project / JOURNAL
    if not journal.is_dir():
        return False
    for name, path in _steps(project):
        target = project / path
        if name is None:
            target.unlink(missing_ok=True)
            _remove_empty(target.parent, project)
        elif (journal / name).is_file():  # else it was moved before the stop
            target = target.resolve()  # a link stays one, and what it leads to is renewed
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_file():
                shutil.copymode(target, journal / name)
            (journal / name).replace(target)
    # A folder is not removed at once: under its name it must be whole or absent.
    shutil.rmtree(journal.rename(_prepared(project)))
    return True


def _steps(project: Path) -> list[list[str | None]]:
    """The journal's steps. It may have come with a cloned repository, so it is not trusted."""
    journal = project / JOURNAL
    try:
        steps = json.loads((journal / "steps.json").read_text(encoding="utf-8"))
        fine = not journal.is_symlink() and all(_is_ours(project, *step) for step in steps)
    except (FileNotFoundError, TypeError, ValueError):
        fine = False
    if not fine:
        raise ConfigError(
            "no upgrade of renshu wrote this",
            where=journal,
            allowed="numbered files for paths in the project, without links and outside .git",
            mend="delete that folder, then `renshu upgrade` again",
        )
    return steps


def _is_ours(project: Path, name: str | None, path: str) -> bool:
    """Whether a step is one that `apply` could have written."""
    place = PurePosixPath(path)
    if place.is_absolute() or any(part.lower() in ("..", ".git") for part in place.parts):
        return False
    root, target = project.resolve(), (project / place).resolve()
    if target == root or not target.is_relative_to(root):
        return False
    if name is None:
        return True
    return str.isdecimal(name) and not (project / JOURNAL / name).is_symlink()


def _prepared(project: Path) -> Path:
    return project / f"{JOURNAL}.tmp"


def _remove_empty(folder: Path, project: Path) -> None:
    while folder != project and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
