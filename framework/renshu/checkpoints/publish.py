"""Folders that appear as a whole: written under another name, then renamed into place.

A name in the making is `.NAME.HOST.PID.N.tmp`, one set aside while its replacement takes its
place `.NAME.HOST.PID.N.old`. Of processes that died, the first is rubbish, the second is still
the valid folder as long as NAME does not exist.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from renshu.checkpoints.files import sync_folder
from renshu.errors import CheckpointError

_HOST = re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname()) or "host"
_OTHER = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d+)\.\d+\.(?P<kind>tmp|old)")
_SLACK = 1 << 20
_count = itertools.count()
_active: set[str] = set()


@contextlib.contextmanager
def replacing(path: Path, size: int) -> Iterator[Path]:
    """Give an empty folder to write to; when the block ends without error it becomes `path`.

    Args:
        path: the final name; if it exists it is replaced.
        size: bytes about to be written, held against the free space first.

    Raises:
        CheckpointError: an OSError on the way, in plain words; what was at `path` is still there.
    """
    stem = f".{path.name}.{_HOST}.{os.getpid()}.{next(_count)}"
    draft, aside = path.with_name(stem + ".tmp"), path.with_name(stem + ".old")
    _active.update((draft.name, aside.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clean(path.parent)
        check_space(path, size)
        draft.mkdir()
        yield draft
        sync_folder(draft)
        _swap(draft, path, aside)
        sync_folder(path.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise _fault(path, error.strerror or str(error), size) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        _active.difference_update((draft.name, aside.name))


def candidates(folder: Path) -> list[Path]:
    """Folders in `folder` that may be whole: all finished ones, and those left aside."""
    if not folder.is_dir():
        return []
    names = {entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)}
    found = []
    for name in sorted(names):
        other = _OTHER.fullmatch(name)
        left = other is not None and other["kind"] == "old" and other["name"] not in names
        if left or not name.startswith("."):
            found.append(folder / name)
    return found


def _swap(draft: Path, path: Path, aside: Path) -> None:
    """Put `draft` in the place of `path`; between the two renames `aside` is the valid one."""
    replaces = path.exists()
    if replaces:
        path.rename(aside)
    try:
        draft.rename(path)
    except BaseException:
        if replaces:
            with contextlib.suppress(OSError):  # else `candidates` still finds it where it lies
                aside.rename(path)
        raise


def _clean(folder: Path) -> None:
    """Remove what dead processes of this machine left, and put back what they had set aside."""
    for entry in os.scandir(folder):
        other = _OTHER.fullmatch(entry.name)
        if other is None or entry.name in _active or other["host"] != _HOST:
            continue
        pid = int(other["pid"])
        if pid != os.getpid() and _alive(pid):
            continue
        target = folder / other["name"]
        with contextlib.suppress(OSError):
            if other["kind"] == "old" and not target.exists():
                Path(entry.path).rename(target)
            else:
                shutil.rmtree(entry.path, ignore_errors=True)


def _alive(pid: int) -> bool:
    if os.name == "nt":  # where signal 0 is no question but Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def check_space(path: Path, size: int) -> None:
    """Raise CheckpointError if `size` bytes do not fit on the disk where `path` is to be."""
    if _free(path) < size + _SLACK:
        raise _fault(path, "there is not enough free space", size)


def _free(path: Path) -> int:
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _fault(path: Path, what: str, size: int) -> CheckpointError:
    try:
        free = f"{_free(path):,}"
    except OSError:
        free = "an unknown number"
    return CheckpointError(
        f"the checkpoint cannot be written: {what}",
        where=f"{path} (needs {size:,} bytes, {free} are free)",
        mend="free some space, or choose another folder; earlier checkpoints are untouched",
    )
