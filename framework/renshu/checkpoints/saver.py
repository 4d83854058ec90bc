"""Writing checkpoints in the background: one thread, one save in flight."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from renshu.checkpoints.format import Snapshot, write


class Saver:
    """Writes snapshots in a thread; an error surfaces at the next `poll`, `submit` or `wait`.

    The thread is no daemon: a program that ends waits for its last save. No thread is started
    before the first `submit`.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def submit(
        self, snapshot: Snapshot, path: str | Path, before_publish: Callable[[], None] | None = None
    ) -> None:
        """Start writing, after waiting for the save before; see `format.write`.

        Raises:
            CheckpointError: the save before has failed; the new one is not started.
        """
        self.wait()

        def run() -> None:
            try:
                write(snapshot, path, before_publish)
            except BaseException as error:  # it belongs to the training thread
                self._error = error

        self._thread = threading.Thread(target=run, name="renshu-saver")
        self._thread.start()

    def poll(self) -> None:
        """Raise the error of a save that has failed; costs one attribute look-up otherwise."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Return when nothing is in flight; raises the error of a save that has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.poll()

    close = wait
    """The same: the saver can be used again."""
