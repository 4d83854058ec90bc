"""A CSV table written row by row, which appears under its name only when it is complete."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from renshu.errors import DataError

_MARKED = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""Text that begins so is taken for a formula by spreadsheets, or for our own mark."""


@contextmanager
def write_table(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that writes one row; the first row's keys are the columns. Constant memory.

    Text that a spreadsheet would run as a formula gets a leading `'` (CWE-1236); numbers stay as
    they are. `read_table` takes the mark off again. Raises DataError for a row with other columns.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    columns: list[str] = []
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)

            def write(row: Mapping[str, Any]) -> None:
                if not columns:
                    columns.extend(row)
                    writer.writerow(map(_cell, columns))
                if row.keys() != set(columns):
                    said = "a row has other columns than the first"
                    raise DataError(said, where=", ".join(row), allowed=", ".join(columns))
                writer.writerow([_cell(row[name]) for name in columns])

            yield write
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table that `write_table` wrote, as text without the marks."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield {key.removeprefix("'"): cell.removeprefix("'") for key, cell in row.items()}


def _cell(value: Any) -> str:
    # str() of numpy's numbers is the number; repr() would name the type.
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_MARKED) else text
