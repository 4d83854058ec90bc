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

from safetensors import SafetensorError

from renshu.checkpoints.files import sync_folder
from renshu.errors import CheckpointError

_HOST = re.sub(r"[^A-Za-z0-9-]", "_", socket.gethostname()) or "host"
_OTHER = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<pid>\d{1,9})\.\d+\.(?P<kind>tmp|old)")
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
        CheckpointError: what the disk said, in plain words; what was at `path` is still there.
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
        if path.exists():
            path.rename(aside)  # from here to the next rename it is the valid one
        draft.rename(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:
        raise _fault(path, getattr(error, "strerror", None) or str(error), size) from error
    finally:
        _active.difference_update((draft.name, aside.name))
        if draft.exists() or aside.exists():
            _clean(path.parent)


def candidates(folder: Path) -> list[Path]:
    """Folders in `folder` that may be whole: all finished ones, and those left aside."""
    there = list(folder.iterdir()) if folder.is_dir() else []
    names = {entry.name for entry in there if entry.is_dir() and not entry.is_symlink()}
    left = {
        other[0]
        for other in map(_OTHER.fullmatch, names)
        if other and other["kind"] == "old" and other["name"] not in names
    }
    return [folder / name for name in sorted(names) if name in left or not name.startswith(".")]


def _clean(folder: Path) -> None:
    """Remove what ended saves of this machine left, and put back what they had set aside."""
    with contextlib.suppress(OSError):  # what stays is found by `candidates`, or tried again
        for entry in folder.iterdir():
            other = _OTHER.fullmatch(entry.name)
            if other is None or entry.name in _active or other["host"] != _HOST:
                continue
            if int(other["pid"]) == os.getpid() or not _alive(int(other["pid"])):
                if other["kind"] == "old" and not (folder / other["name"]).exists():
                    entry.rename(folder / other["name"])
                else:
                    shutil.rmtree(entry, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        if os.name != "nt":  # where signal 0 is no question but Ctrl-C
            os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)  # it is another user's
    return True


def check_space(path: Path, size: int) -> None:
    """Raise CheckpointError if `size` bytes do not fit on the disk where `path` is to be."""
    if _free(path) < size + _SLACK:
        raise _fault(path, "there is not enough free space", size)


def _free(path: Path) -> int:
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(there).free


def _fault(path: Path, what: str, size: int) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint cannot be written: {what}",
        where=f"{path} (needs {size:,} bytes, {_free(path):,} are free)",
        mend="free some space, or choose another folder; earlier checkpoints are untouched",
    )
