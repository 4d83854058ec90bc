"""What is done, in a SQLite file that survives a kill at any point."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from renshu.errors import RunError

Row = dict[str, Any]

_TABLE = "CREATE TABLE IF NOT EXISTS jobs (key TEXT PRIMARY KEY, row TEXT NOT NULL) WITHOUT ROWID"


class Log:
    """Rows of finished jobs by key. One process writes; each row is durable once added."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(_TABLE)

    def add(self, key: str, row: Row) -> None:
        """Keep the row of a job that has ended. One that is there is replaced."""
        self.add_all([(key, row)])

    def add_all(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Keep many rows in one transaction."""
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT OR REPLACE INTO jobs VALUES (?, ?)",
            ((key, json.dumps(row, allow_nan=False)) for key, row in rows),
        )
        self._database.execute("COMMIT")

    def rows(self, keys: Iterable[str] | None = None) -> list[Row]:
        """Rows in the order of their series, detectors and seeds; of these keys only."""
        wanted = None if keys is None else set(keys)
        found = self._database.execute("SELECT key, row FROM jobs")
        rows = [json.loads(row) for key, row in found if wanted is None or key in wanted]
        return sorted(rows, key=lambda row: (row["series"], row["detector"], row["seed"]))

    def close(self) -> None:
        self._database.close()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep a second run out of the folder. Raises RunError if one is at work in it."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError("another benchmark is at work in this folder", where=folder) from error
        yield
