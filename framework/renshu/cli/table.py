"""A CSV table written row by row, which appears under its name only when it is complete."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from renshu.errors import DataError, RunError

_MARKED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""Text that begins so is taken for a formula by spreadsheets, or for our own mark."""


class TableWriter:
    """Write rows to `path` in constant memory; the first row's keys are the columns.

    Text that a spreadsheet would run as a formula gets a leading `'` (CWE-1236); numbers stay as
    they are. `read_table` takes the mark off again.

    Raises:
        RunError: the file cannot be written.
        DataError: a row has other columns than the first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._columns: list[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._file = self._temporary.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise self._failed(error) from error
        self._writer = csv.writer(self._file)
        return self

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row."""
        try:
            if self._columns is None:
                self._columns = list(row)
                self._writer.writerow([_cell(name) for name in self._columns])
            if row.keys() != set(self._columns):
                raise DataError(
                    f"row {self.rows + 1} has other columns than the first",
                    where=", ".join(row),
                    allowed=", ".join(self._columns),
                )
            self._writer.writerow([_cell(row[name]) for name in self._columns])
        except OSError as error:
            raise self._failed(error) from error
        self.rows += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            with self._file:
                self._file.flush()
                os.fsync(self._file.fileno())
            if kind is None:
                self._temporary.replace(self.path)
        except OSError as failed:
            if kind is None:
                raise self._failed(failed) from failed
        finally:
            self._temporary.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"cannot write the table: {error.strerror}", where=self.path)


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table that `TableWriter` wrote, as text without the marks."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        columns = [_plain(name) for name in next(reader, [])]
        for row in reader:
            yield dict(zip(columns, map(_plain, row), strict=True))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (bool, int)):
        return str(value)
    if isinstance(value, float):
        return repr(float(value))  # numpy's float64 is a float and would print its type
    text = str(value)
    return f"'{text}" if text.startswith(_MARKED) else text


def _plain(text: str) -> str:
    return text.removeprefix("'")
