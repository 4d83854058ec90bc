"""Templates as a user finds them, and projects as lists of files."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from renshu_templates.template import Template

NAMES = sorted(point.name for point in entry_points(group="renshu.templates"))
"""Every installed template: a new one is tested without a line here."""

ALL = {"serving": "fastapi", "slurm": "yes", "kubernetes": "yes"}
"""The answers that leave no file out."""


def find(name: str) -> Template:
    """An installed template."""
    (point,) = entry_points(group="renshu.templates", name=name)
    return point.load()


def tree(folder: Path) -> dict[str, bytes]:
    """Content by path of all files below a folder, without git's."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")))
    return {
        path.as_posix(): (folder / path).read_bytes()
        for path in paths
        if (folder / path).is_file() and path.parts[0] != ".git"
    }
