"""A CSV table written row by row, which appears under its name only when it is complete."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from renshu.errors import DataError

_MARKED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""Text that begins so is taken for a formula by spreadsheets, or for our own mark."""


class TableWriter:
    """Write rows to `path` in constant memory; the first row's keys are the columns.

    Text that a spreadsheet would run as a formula gets a leading `'` (CWE-1236); numbers stay as
    they are. `read_table` takes the mark off again. Raises DataError for a row with other columns.

    Attributes:
        rows: how many are written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._columns: list[str] = []

    def __enter__(self) -> Self:
        self._file = self._temporary.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file)
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        if not self._columns:
            self._columns = list(row)
            self._writer.writerow(map(_cell, row))
        if row.keys() != set(self._columns):
            said = f"row {self.rows + 1} has other columns than the first"
            raise DataError(said, where=", ".join(row), allowed=", ".join(self._columns))
        self._writer.writerow([_cell(row[name]) for name in self._columns])
        self.rows += 1

    def __exit__(self, kind: object, *rest: object) -> None:
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
            if kind is None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table that `TableWriter` wrote, as text without the marks."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {key.removeprefix("'"): cell.removeprefix("'") for key, cell in row.items()}


def _cell(value: Any) -> str:
    # str() of numpy's numbers is the number; repr() would name the type.
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_MARKED) else text
