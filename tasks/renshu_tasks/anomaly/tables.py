"""CSV and parquet: which column is what, and every cell a number, or the row is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from renshu.errors import DataError, near
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.series import Labels, Values

if TYPE_CHECKING:
    import pandas as pd

_TIMES = ("timestamp", "time", "date", "datetime")
_LABELS = ("label", "labels", "anomaly", "is_anomaly")

CHUNK = 100_000
"""Rows that are read at once where the whole file is not needed."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table are what.

    Attributes:
        time: name of the time stamps, or None.
        values: names of the channels.
        label: name of the labels, or None.
    """

    time: str | None
    values: tuple[str, ...]
    label: str | None


@dataclass(frozen=True)
class Rows:
    """A stretch of a table.

    Attributes:
        first: number of its first row in the file, from 0 below the head.
        times: float64 [N], seconds since 1970 UTC, or the numbers as they stand; or None.
        values: float64 [N, C]; NaN where a cell is empty.
        labels: uint8 [N], or None.
    """

    first: int
    times: NDArray[np.float64] | None
    values: Values
    labels: Labels | None


def columns_of(names: Sequence[str], options: DataOptions, where: Path) -> Columns:
    """Find the columns. Raises DataError for names that are not there, with the nearest."""
    lower = {name.lower().strip(): name for name in reversed(names)}
    time = options.time_column or next((lower[key] for key in _TIMES if key in lower), None)
    label = options.label_column or next((lower[key] for key in _LABELS if key in lower), None)
    values = options.columns or [name for name in names if name not in (time, label)]
    for asked in filter(None, (options.time_column, options.label_column, *values)):
        if asked not in names:
            raise DataError(
                f"there is no column {asked!r}",
                where=where,
                allowed=", ".join(names),
                mend=near(asked, names),
            )
    if not values:
        raise DataError("there is no column of values", where=where, allowed=", ".join(names))
    return Columns(time, tuple(values), label)


def read_rows(path: Path, columns: Columns, chunk: int = CHUNK) -> Iterator[Rows]:
    """A table in stretches of at most `chunk` rows.

    Raises DataError for cells that are no numbers, time stamps that cannot be read, labels other
    than 0 and 1, each with its row.
    """
    first = 0
    for frame in _frames(path, columns, chunk):
        where = _Place(path, first)
        labels = None
        if columns.label is not None:
            labels = _labels(_numbers(frame[columns.label], where), columns.label, where)
        yield Rows(
            first,
            None if columns.time is None else _times(frame[columns.time], where),
            np.column_stack([_numbers(frame[name], where) for name in columns.values]),
            labels,
        )
        first += len(frame)


def head_of(path: Path) -> list[str]:
    """The names of a table's columns. Raises DataError for a file that is no table."""
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            names = parquet.read_schema(path).names
        else:
            import pandas as pd

            names = list(pd.read_csv(path, nrows=0).columns)
    except (ValueError, OSError) as error:
        raise DataError(f"the table cannot be read: {error}", where=path) from error
    numeric = [name for name in names if _is_number(name)]
    if numeric:
        raise DataError(
            f"the first row holds numbers ({', '.join(numeric[:3])}) where names are expected",
            where=path,
            mend="put a row of column names at the top, such as time,value",
        )
    return names


@dataclass(frozen=True)
class _Place:
    """Names a row of a file as its user counts: from 1, the head not counted."""

    path: Path
    first: int

    def row(self, number: int, column: str) -> str:
        return f"{self.path}, row {self.first + number + 1}, column {column!r}"


def _frames(path: Path, columns: Columns, chunk: int) -> Iterator[pd.DataFrame]:
    wanted = [name for name in (columns.time, *columns.values, columns.label) if name]
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(chunk, columns=wanted):
                    yield batch.to_pandas()
        else:
            import pandas as pd

            with pd.read_csv(path, usecols=wanted, chunksize=chunk, low_memory=False) as reader:
                yield from reader
    except (ValueError, OSError) as error:
        raise DataError(f"the table cannot be read: {error}", where=path) from error


def _numbers(column: pd.Series[Any], where: _Place) -> NDArray[np.float64]:
    """A column as float64; an empty cell is NaN, and text an error with its row."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        found = column.to_numpy(np.float64, na_value=np.nan)
    else:
        found = pd.to_numeric(column, errors="coerce").to_numpy(np.float64)
        bad = np.isnan(found) & column.notna().to_numpy()
        if bad.any():
            row = int(bad.argmax())
            raise DataError(
                f"{str(column.iloc[row])[:40]!r} is no number",
                where=where.row(row, str(column.name)),
                allowed="numbers, or nothing where a value is missing",
                mend="--data.columns NAME,… names the columns of values",
            )
    infinite = np.isinf(found)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(f"{found[row]} is not finite", where=where.row(row, str(column.name)))
    return found


def _times(column: pd.Series[Any], where: _Place) -> NDArray[np.float64]:
    """Seconds: numbers as they stand, dates since 1970 UTC (without a zone: UTC)."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64, na_value=np.nan)
    stamps = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    bad = stamps.isna().to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise DataError(
            f"{str(column.iloc[row])[:40]!r} is no time stamp",
            where=where.row(row, str(column.name)),
            allowed="ISO 8601, such as 2026-01-31 13:05:00, or numbers of seconds",
        )
    return stamps.to_numpy("datetime64[ns]").astype(np.int64) / 1e9


def _labels(found: NDArray[np.float64], name: str, where: _Place) -> Labels:
    bad = ~np.isin(found, (0, 1))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"the label {found[row]:g}", where=where.row(row, name), allowed="0 or 1")
    return found.astype(np.uint8)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
