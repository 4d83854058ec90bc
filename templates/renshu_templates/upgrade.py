"""A project moves to a newer template, or to other answers, by a three-way merge."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from renshu.errors import ConfigError
from renshu_templates import git
from renshu_templates.merge import has_marks, merge, merge_requirements
from renshu_templates.render import Files

ANSWERS = ".renshu.yaml"
"""The file in a project that says what it was made from."""

Kind = Literal["new", "clean", "merged", "conflict", "kept", "gone"]


@dataclass(frozen=True)
class Change:
    """What an upgrade does to one file.

    Attributes:
        path: below the project.
        kind: new: it was not there; clean: as the template has it, for you had not changed it;
            merged: your changes and the template's; conflict: both, with marks; kept: left as it
            is, although the template has another; gone: removed, the template has it no more.
        content: the new bytes; None where nothing is written.
        why: of a file that is kept.
        sides: of a conflict: base, yours and the template's.
    """

    path: str
    kind: Kind
    content: bytes | None = None
    why: str = ""
    sides: tuple[bytes | None, ...] = ()


def plan(
    project: Path,
    base: Files,
    theirs: Files,
    ownership: Mapping[str, Collection[str]],
    restore: Collection[str] = (),
) -> list[Change]:
    """What happens to each file in which the two renderings differ; nothing is written.

    `restore` names files that were deleted and come back. Raises ConfigError where a file that
    would be touched holds conflict marks, or changes that are not committed.
    """
    if strange := sorted(set(restore) - theirs.keys()):
        raise ConfigError("the template has no such file", where=", ".join(strange))
    different = [p for p in sorted(base.keys() | theirs.keys()) if base.get(p) != theirs.get(p)]
    different += [path for path in restore if path not in different]
    hidden = git.ignored(project, different) if different else set()
    found = [
        Change(path, "kept", why="git ignores it")
        if path in hidden
        else _change(path, _read(project, path), base.get(path), theirs.get(path), ownership)
        if path not in restore
        else _restored(project, path, theirs[path])
        for path in different
    ]
    changes = [change for change in found if change is not None]
    _refuse_unfinished(project, changes)
    return changes


def _change(
    path: str,
    ours: bytes | None,
    base: bytes | None,
    theirs: bytes | None,
    ownership: Mapping[str, Collection[str]],
) -> Change | None:
    """What happens to one file; None where it is already as the new template has it."""
    if ours is None:
        if base is not None:
            return None if theirs is None else Change(path, "kept", why="you deleted it")
        return Change(path, "new", theirs)
    # A checkout with CRLF has it on every line; in a mixed file each line stays as it is.
    crlf = b"\n" in ours and ours.count(b"\r\n") == ours.count(b"\n")
    plain = ours.replace(b"\r\n", b"\n") if crlf else ours
    if plain == theirs:
        return None
    if theirs is None:
        same = plain == base
        return Change(path, "gone") if same else Change(path, "kept", why="you changed it")
    if plain == base or path in ownership.get("template", ()):
        return Change(path, "clean", _ended(theirs, crlf))
    if path in ownership.get("yours", ()):
        return Change(path, "kept", why="it is yours, and you changed it")
    return _merged(path, plain, base or b"", theirs, crlf)


def _merged(path: str, ours: bytes, base: bytes, theirs: bytes, crlf: bool) -> Change:
    try:
        texts = base.decode(), ours.decode(), theirs.decode()
    except UnicodeDecodeError:
        return Change(path, "kept", why="it is no text, and you changed it")
    if has_marks(texts[1]):
        raise ConfigError(
            "a conflict from before is not settled",
            where=path,
            mend="choose what holds and remove the lines of <<<<<<<, |||||||, ======= and >>>>>>>",
        )
    if path == "pyproject.toml":
        texts = merge_requirements(*texts)
    text, conflicts = merge(*texts)
    content = _ended(text.encode(), crlf)
    if conflicts:
        return Change(path, "conflict", content, sides=(base, ours, theirs))
    return Change(path, "merged", content)


def _restored(project: Path, path: str, theirs: bytes) -> Change | None:
    if _read(project, path) is not None:
        raise ConfigError("the file is there", where=path, mend="leave out --restore")
    return Change(path, "new", theirs)


def _ended(content: bytes, crlf: bool) -> bytes:
    return content.replace(b"\n", b"\r\n") if crlf else content


def _read(project: Path, path: str) -> bytes | None:
    file = project / path
    if not file.resolve().is_relative_to(project.resolve()):
        raise ConfigError("a link leads out of the project", where=file)
    if file.is_dir():
        raise ConfigError("a folder is where the template has a file", where=file)
    return file.read_bytes() if file.is_file() else None


def _refuse_unfinished(project: Path, changes: list[Change]) -> None:
    """What is not committed could not be told from what the upgrade did."""
    touched = [change.path for change in changes if change.kind != "kept"]
    if touched and (dirty := git.changed(project, touched)):
        raise ConfigError(
            "these files have changes that are not committed",
            where=", ".join(dirty),
            mend='git commit -am "before the upgrade", or git stash',
        )
