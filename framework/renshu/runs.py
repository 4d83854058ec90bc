"""The folder of a run: its name, its lock, and finding checkpoints in it."""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import weakref
from pathlib import Path
from typing import IO

from renshu.errors import CheckpointError, ConfigError, near
from renshu.messages import say

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]{0,99}")


class RunFolder:
    """`<root>/runs/<name>`, held under a lock while a process trains in it."""

    def __init__(self, path: Path):
        self.path = path
        self._lock: IO[str] | None = None

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def lock(self) -> None:
        """Refuse a second live process on this run; the system frees the lock of a dead one."""
        if self._lock is not None:
            return
        try:
            lock = (self.path / ".lock").open("a+")
        except OSError as error:
            raise _not_writable(self.path, error) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip()
            lock.close()
            raise ConfigError(
                f"another process trains in this run{f' (process {owner})' if owner else ''}",
                where=self.path,
                mend="wait for it, stop it, or choose another name: Trainer(run=…)",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock
        _locked.add(self)

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __del__(self) -> None:
        self.unlock()


_locked: weakref.WeakSet[RunFolder] = weakref.WeakSet()


def _unlock_in_child() -> None:
    # Else the workers of a killed process, which live on for some seconds, would hold its lock.
    for folder in list(_locked):
        folder.unlock()


os.register_at_fork(after_in_child=_unlock_in_child)


def runs_root(default_root_dir: str | None) -> Path:
    """Where the runs of a `default_root_dir` lie."""
    return Path(default_root_dir or ".").absolute() / "runs"


def open_run(root: Path, name: str | None, *, resume: bool) -> RunFolder:
    """The locked folder of a run; a new one `<date>-<n>` without a name.

    Raises:
        ConfigError: the name is no plain folder name, the run exists and is not to be continued,
            another process holds it, or nothing may be written there.
    """
    if name is None:
        folder = _new(root)
    else:
        folder = RunFolder(root / _checked(name))
        _make(folder.path)
    folder.lock()
    if not resume and name is not None and _saved(folder.path):
        folder.unlock()
        raise ConfigError(
            f"the run {name!r} exists and has checkpoints",
            where=folder.path,
            mend='ckpt_path="last" continues it; or choose another name',
        )
    return folder


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be the name of a run",
            allowed="letters, digits and . _ = + -, up to 100, starting with a letter or digit",
        )
    return name


def _new(root: Path) -> RunFolder:
    _make(root)
    today = datetime.date.today().isoformat()
    number = 1
    while True:
        path = root / f"{today}-{number}"
        try:
            # Exclusive: two processes that start together get two folders.
            path.mkdir()
            return RunFolder(path)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise _not_writable(path, error) from None


def _make(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from None


def _not_writable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"the folder of the run cannot be written: {error.strerror}",
        where=path,
        mend="default_root_dir=… names a place that may be written to",
    )


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    parent = checkpoint.absolute().parent
    return parent.parent if parent.name == "checkpoints" else None


def _saved(run: Path) -> list[str]:
    """Names of a run's checkpoints, whole or damaged; not of drafts that a kill left behind."""
    found = (path.parent.name for path in run.glob("checkpoints/*/manifest.json"))
    return sorted(name for name in found if not name.startswith("."))


def _newest(run: Path) -> Path | None:
    """The newest good checkpoint of a run; None if it has none at all."""
    from renshu.checkpoints import newest

    found = newest(run / "checkpoints")
    if found is None:
        if damaged := _saved(run):
            raise CheckpointError(
                f"no checkpoint of the run is as it was written: {', '.join(damaged)}",
                where=run / "checkpoints",
                mend="restore one from a copy, or start anew with another Trainer(run=…)",
            )
        say(f"run {run.name!r} has no checkpoint yet: it starts from the beginning")
    return found


def find_checkpoint(word: str | Path, root: Path, name: str | None, best: str = "") -> Path | None:
    """The checkpoint that `ckpt_path` means: a path, a run folder, "last" or "best".

    None for "last" of a named run without a checkpoint: the run starts fresh, and says so.

    Raises:
        ConfigError: "last" without a name of a run; "best" with nothing watched.
        CheckpointError: nothing is there, or nothing undamaged.
    """
    from renshu.checkpoints import newest

    if word == "best":
        if not best:
            raise ConfigError(
                "there is no best checkpoint: no ModelCheckpoint with a monitor has saved one",
                where='ckpt_path="best"',
                allowed='a path, a run folder, "last"',
            )
        return Path(best)
    if word == "last":
        if name is None:
            runs = sorted(path.name for path in root.glob("*") if path.is_dir())
            raise ConfigError(
                'ckpt_path="last" needs to know of which run',
                where="Trainer(run=…)",
                allowed=", ".join(runs[-20:]) or f"there is no run in {root} yet",
                mend='Trainer(run="name"), or the path of a run as ckpt_path',
            )
        return _newest(root / _checked(name))
    path = Path(word)
    if (path / "manifest.json").is_file():
        return path
    if (path / "checkpoints").is_dir() and (found := newest(path / "checkpoints")) is not None:
        return found
    known = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
    raise CheckpointError(
        "there is no checkpoint",
        where=path,
        allowed='the folder of a checkpoint or of a run, "last" or "best"',
        mend=near(path.name, known),
    )
