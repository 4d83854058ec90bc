"""Files that a task reads and leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from renshu.errors import DataError

_SEPARATORS = (",", ";", "\t")


def write_json(file: Path, value: Any) -> None:
    """JSON without NaN and infinity, which other readers refuse."""
    file.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8")


def inside(root: Path, file: Path) -> bool:
    """Whether a file lies in a folder once all links are followed; compared part by part."""
    return file.resolve().is_relative_to(root.resolve())


def read_rows(path: Path, noun: str, mend: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Header, and (line, fields) of every row of a CSV file that is not empty.

    In UTF-8, separated by comma, semicolon or tab. DataError for what cannot be read; `noun` is
    what the file is called there, `mend` how another encoding is mended.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the {noun} is not UTF-8 at byte {error.start}", where=path, mend=mend
        ) from error
    first = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=first.count)
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(
            f"the {noun} cannot be read: {error}", where=f"{path}, line {reader.line_num}"
        ) from error
    if not rows:
        raise DataError(f"the {noun} is empty", where=path)
    return [name.strip() for name in rows[0][1]], rows[1:]
