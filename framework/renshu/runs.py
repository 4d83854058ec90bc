"""The folder of a run: its name, its lock, and finding checkpoints in it."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
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
            import fcntl
        except ImportError:  # Windows has no such locks: there nobody is refused
            return
        with _writing(self.path):
            lock = (self.path / ".lock").open("a+")
        try:
            # Not flock: its lock would live on in workers whose main process was killed.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            said = f"another process trains in this run (process {lock.read().strip()})"
            lock.close()
            mend = "wait for it, stop it, or choose another name: Trainer(run=…)"
            raise ConfigError(said, where=self.path, mend=mend) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        self._lock = lock

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def runs_root(default_root_dir: str | None) -> Path:
    """Where the runs of a `default_root_dir` lie."""
    return Path(default_root_dir or ".").absolute() / "runs"


def open_run(root: Path, name: str | None, *, resume: bool) -> RunFolder:
    """The locked folder of a run; a new one `<date>-<n>` without a name.

    Raises:
        ConfigError: the name is no plain folder name, the run exists and is not to be continued,
            another process holds it, or nothing may be written there.
    """
    path = _new(root) if name is None else root / _checked(name)
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    folder.lock()
    if not resume and _saved(path):
        folder.unlock()
        mend = 'ckpt_path="last" continues it; or choose another name'
        raise ConfigError(f"the run {name!r} exists and has checkpoints", where=path, mend=mend)
    return folder


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        allowed = "letters, digits and . _ = + -, up to 100, starting with a letter or digit"
        raise ConfigError(f"{name!r} cannot be the name of a run", allowed=allowed)
    return name


def _new(root: Path) -> Path:
    today = datetime.date.today().isoformat()
    for number in count(1):
        path = root / f"{today}-{number}"
        # Exclusive: two processes that start together get two folders.
        with _writing(path), suppress(FileExistsError):
            path.mkdir(parents=True)
            return path
    raise AssertionError


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = f"the folder of the run cannot be written: {error.strerror}"
        mend = "default_root_dir=… names a place that may be written to"
        raise ConfigError(said, where=path, mend=mend) from None


def run_of(checkpoint: Path) -> Path | None:
    """The run folder that a checkpoint lies in, if it lies in one."""
    parent = checkpoint.absolute().parent
    return parent.parent if parent.name == "checkpoints" else None


def _saved(run: Path) -> list[str]:
    """Names of a run's checkpoints, whole or damaged; not of drafts that a kill left behind."""
    found = (path.parent.name for path in run.glob("checkpoints/*/manifest.json"))
    return sorted(name for name in found if not name.startswith("."))


def find_checkpoint(word: str | Path, root: Path, name: str | None, best: str = "") -> Path | None:
    """The checkpoint that `ckpt_path` means: a path, a run folder, "last" or "best".

    None for "last" of a named run without a checkpoint: the run starts fresh, and says so.

    Raises:
        ConfigError: "last" without a name of a run; "best" with nothing watched.
        CheckpointError: nothing is there, or nothing undamaged.
    """
    if word == "best" and best:
        return Path(best)
    if word in ("best", "last"):
        if name is None:
            runs = sorted(path.name for path in root.glob("*") if path.is_dir())
            raise ConfigError(
                f'ckpt_path="{word}" needs to know of which run',
                allowed=", ".join(runs[-20:]) or f"there is no run in {root} yet",
                mend='Trainer(run="name"), or the path of a run as ckpt_path',
            )
        found = _newest(root / _checked(name))
        if word == "best":
            return _best(found)
        if found is None:
            say(f"run {name!r} has no checkpoint yet: it starts from the beginning")
        return found
    path = Path(word)
    found = path if (path / "manifest.json").is_file() else _newest(path)
    if found is None:
        known = [p.name for p in path.parent.glob("*")]
        allowed = 'the folder of a checkpoint or of a run, "last" or "best"'
        mend = near(path.name, known)
        raise CheckpointError("there is no checkpoint", where=path, allowed=allowed, mend=mend)
    return found


def _best(newest: Path | None) -> Path:
    """The best checkpoint by what the newest one says of those beside it."""
    from renshu.checkpoints import read

    states = {} if newest is None else read(newest).get("callbacks", {})
    names = [s["best"] for s in states.values() if isinstance(s, dict) and s.get("best")]
    if newest is None or not names:
        said = "there is no best checkpoint: no ModelCheckpoint with a monitor has saved one"
        raise ConfigError(said, where='ckpt_path="best"', allowed='a path, a folder, "last"')
    return newest.parent / names[0]


def _newest(run: Path) -> Path | None:
    """The newest good checkpoint of a run; None if it has none at all."""
    from renshu.checkpoints import newest

    found = newest(run / "checkpoints") if run.is_dir() else None
    if found is None and (damaged := _saved(run)):
        said = f"no checkpoint of the run is as it was written: {', '.join(damaged)}"
        mend = "restore one from a copy, or start anew with another Trainer(run=…)"
        raise CheckpointError(said, where=run / "checkpoints", mend=mend)
    return found
