"""Writing checkpoints in the background: one thread, one save in flight."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from renshu.checkpoints.format import Snapshot, write


class Saver:
    """Writes snapshots in a thread; an error surfaces at the next `submit` or `wait`.

    A program that ends waits for its last save. No thread is started before the first `submit`.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "renshu-saver")
        self._saves: list[Future[Any]] = []
        self._discards: list[Future[Any]] = []

    def submit(
        self, snapshot: Snapshot, path: str | Path, before_publish: Callable[[], None] | None = None
    ) -> None:
        """Start writing, after waiting for the save before; see `format.write`.

        Raises:
            CheckpointError: the save before has failed; the new one is not started.
        """
        self._finish(self._saves)
        self._saves.append(self._pool.submit(write, snapshot, path, before_publish))

    def discard(self, path: Path) -> None:
        """Delete a folder after the saves before; the next save need not wait for it."""
        self._discards.append(self._pool.submit(shutil.rmtree, path, ignore_errors=True))

    def wait(self) -> None:
        """Return when nothing is in flight; raises the error of a save that has failed."""
        self._finish(self._saves)
        self._finish(self._discards)

    def _finish(self, tasks: list[Future[Any]]) -> None:
        while tasks:
            tasks.pop().result()

    close = wait
    """The same: the saver can be used again."""
