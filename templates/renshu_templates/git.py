"""What git knows of a project. Without git, or outside a repository, there is nothing to know."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from renshu.errors import ConfigError

_NO_REPOSITORY = b"not a git repository ("


def changed(project: Path, paths: Iterable[str]) -> list[str]:
    """Those of the paths that are tracked and differ from the last commit."""
    arguments = ["status", "--porcelain", "-z", "--untracked-files=no", "--no-renames", "--"]
    found = (_git(project, *arguments, *paths) or b"").decode().split("\0")
    prefix = (_git(project, "rev-parse", "--show-prefix") or b"").decode().strip()
    return [entry[3:].removeprefix(prefix) for entry in found if entry]


def ignored(project: Path, paths: Iterable[str]) -> set[str]:
    """Those of the paths that git ignores."""
    found = _git(project, "check-ignore", "-z", "--stdin", input="\0".join(paths).encode())
    return set((found or b"").decode().split("\0")) - {""}


def show_conflict(project: Path, path: str, sides: Sequence[bytes | None]) -> None:
    """Put base, ours and theirs into the index as stages 1 to 3, as a merge of git's own does."""
    prefix = _git(project, "rev-parse", "--show-prefix")
    if prefix is None:
        return
    full = prefix.decode().strip() + path
    lines = [f"0 {'0' * 40}\t{full}"]
    for stage, content in enumerate(sides, start=1):
        if content is not None:
            name = _git(project, "hash-object", "-w", "--stdin", input=content) or b""
            lines.append(f"100644 {name.decode().strip()} {stage}\t{full}")
    _git(project, "update-index", "-z", "--index-info", input="\0".join([*lines, ""]).encode())


def _git(project: Path, *arguments: str, input: bytes | None = None) -> bytes | None:
    """What a command of git prints; None without git or a repository.

    Raises ConfigError where git fails: it cannot be told then what is ignored or not committed.
    """
    program = shutil.which("git")
    if program is None:
        return None
    command = [program, "-C", str(project), *arguments]
    english = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(
        command, input=input or b"", capture_output=True, check=False, env=english
    )
    if done.returncode == 0 or not done.stderr:  # check-ignore is 1 where nothing is ignored
        return done.stdout
    if _NO_REPOSITORY in done.stderr:
        return None
    said = done.stderr.decode(errors="replace").strip()
    mend = "make `git status` work in that folder"
    raise ConfigError(f"git fails: {said}", where=project, mend=mend)
