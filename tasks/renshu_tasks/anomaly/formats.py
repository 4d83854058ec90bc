"""The formats of the benchmarks: NAB, TSB-AD, UCR, SMD. Each gives a Series."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from renshu.errors import DataError
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.sampling import Holder, Placer, on_grid
from renshu_tasks.anomaly.series import Labels, Series, Values
from renshu_tasks.anomaly.tables import Columns, Rows, columns_of, head_of, read_rows

TSB_AD = re.compile(r".*_tr_(?P<train>\d+)_1st_(?P<first>\d+)(?:_.*)?$")
UCR = re.compile(r".*_(?P<train>\d+)_(?P<first>\d+)_(?P<last>\d+)$")
WINDOWS = "combined_windows.json"
NAB_SHARE = 0.15
"""NAB's probationary period, in which no anomaly is scored: at most 750 of 5000 points."""

_SHARE = 0.5


def read_table(path: Path, options: DataOptions) -> Series:
    """A CSV or parquet file with a head."""
    columns = columns_of(head_of(path), options, path)
    rows = _whole(path, columns, options)
    return _placed(path, columns, rows, options, rows_only=options.sampling == "rows")


def read_nab(path: Path, options: DataOptions) -> Series:
    """A file of NAB: rows are counted, whatever their time stamps; labels are its windows."""
    columns = columns_of(head_of(path), options, path)
    rows = _whole(path, columns, options)
    if rows.times is None:
        raise DataError("NAB's files have time stamps", where=path, allowed="timestamp,value")
    series = _placed(path, columns, rows, options, rows_only=options.sampling != "grid")
    assert series.times is not None
    labels = np.zeros(len(series), np.uint8)
    for start, stop in _windows(path, options):
        labels[(series.times >= start) & (series.times <= stop)] = 1
    train = int(NAB_SHARE * min(len(series), 5000))
    return replace(series, labels=labels, train_end=train)


def read_tsb_ad(path: Path, options: DataOptions) -> Series:
    """A file of TSB-AD: values and Label, the training part's end in its name."""
    found = TSB_AD.match(path.stem)
    if found is None:
        raise DataError("the name does not end in _tr_N_1st_M", where=path)
    series = read_table(path, options)
    return replace(series, train_end=_within(int(found["train"]), len(series), path))


def read_ucr(path: Path, options: DataOptions) -> Series:
    """A file of the UCR archive: numbers, and in its name training end, first and last anomaly.

    The places count from 1 in the archive's names; both ends belong to the anomaly.
    """
    found = UCR.match(path.stem)
    if found is None:
        raise DataError("the name does not end in _TRAIN_FIRST_LAST", where=path)
    values = read_numbers(path, options.max_values).reshape(-1, 1)  # some are one long line
    labels = np.zeros(len(values), np.uint8)
    first = _within(int(found["first"]), len(values), path)
    last = _within(int(found["last"]), len(values), path)
    labels[max(first - 1, 0) : last] = 1
    train = _within(int(found["train"]), len(values), path)
    return Series(path.stem, values, labels, train, source=str(path))


def read_smd(folder: Path, options: DataOptions) -> Series:
    """A machine of a folder with train/, test/ and test_label/, texts of numbers and commas."""
    names = sorted(file.stem for file in (folder / "train").glob("*.txt"))
    name = options.series or (names[0] if len(names) == 1 else None)
    if name not in names:
        raise DataError(
            f"there is no series {name!r}" if name else f"there are {len(names)} series",
            where=folder / "train",
            allowed=", ".join(names[:30]) or "*.txt",
            mend=f"--data.series {names[0]}" if names else None,
        )
    parts = [
        read_numbers(folder / kind / f"{name}.txt", options.max_values)
        for kind in ("train", "test", "test_label")
    ]
    train, test, marks = parts
    if train.shape[1] != test.shape[1] or len(marks) != len(test):
        raise DataError(
            f"train {train.shape}, test {test.shape}, labels {marks.shape} do not fit",
            where=folder / "test" / f"{name}.txt",
            allowed="as many columns in both, as many labels as test rows",
        )
    labels = np.concatenate([np.zeros(len(train)), marks[:, 0] > 0]).astype(np.uint8)
    values = np.concatenate([train, test])
    if np.isnan(values).any():
        values, _ = Holder(options.max_gap, f"{folder}, series {name}").feed(values)
    return Series(str(name), values, labels, len(train), source=str(folder))


READERS: dict[str, Callable[[Path, DataOptions], Series]] = {
    "csv": read_table,
    "nab": read_nab,
    "tsb_ad": read_tsb_ad,
    "ucr": read_ucr,
    "smd": read_smd,
}


def read_numbers(path: Path, max_values: int) -> Values:
    """A text of numbers, parted by commas or spaces, [rows, columns]; the bad row is named."""
    rows: list[list[float]] = []
    count = 0
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the file cannot be read: {error}", where=path) from error
    for number, line in enumerate(text.splitlines()):
        if not line.strip():
            continue
        try:
            rows.append([float(cell) for cell in line.replace(",", " ").split()])
        except ValueError as error:
            raise DataError(
                f"{str(error).partition(': ')[2]} is no number", where=f"{path}, line {number + 1}"
            ) from error
        if len(rows[-1]) != len(rows[0]):
            raise DataError(
                f"{len(rows[-1])} numbers where the first line has {len(rows[0])}",
                where=f"{path}, line {number + 1}",
            )
        count += len(rows[-1])
        check_size(count, max_values, path)
    if not rows:
        raise DataError("the file is empty", where=path)
    return np.array(rows, dtype=np.float64)


def check_size(count: int, max_values: int, path: Path) -> None:
    """Raises DataError for more values than are read into memory."""
    if count > max_values:
        raise DataError(
            f"more than {max_values:,} values are not read at once",
            where=path,
            mend="cut the part to train on; renshu predict reads files of any length",
        )


def _whole(path: Path, columns: Columns, options: DataOptions) -> Rows:
    """All rows of a table, of at most `max_values` values."""
    parts, count = [], 0
    for rows in read_rows(path, columns):
        count += rows.values.size
        check_size(count, options.max_values, path)
        parts.append(rows)
    if not parts or not count:
        raise DataError("the table has no rows", where=path)
    times = None if columns.time is None else np.concatenate([_times(rows) for rows in parts])
    labels = None if columns.label is None else np.concatenate([_labels(rows) for rows in parts])
    return Rows(0, times, np.concatenate([rows.values for rows in parts]), labels)


def _times(rows: Rows) -> Values:
    assert rows.times is not None
    return rows.times


def _labels(rows: Rows) -> Labels:
    assert rows.labels is not None
    return rows.labels


def _placed(
    path: Path, columns: Columns, rows: Rows, options: DataOptions, rows_only: bool
) -> Series:
    """Rows as a series on regular points; see sampling.py for the rule."""
    values, labels, times, period = rows.values, rows.labels, rows.times, 1.0
    sampling: Literal["rows", "grid", "mean"] = "rows"
    if times is not None:
        period = options.period or (float(np.median(np.diff(times))) if len(times) > 1 else 1.0)
    if times is not None and not rows_only:
        sampling = "grid" if options.period is None else "mean"
        placer = Placer(period, options.period is not None, str(path))
        places = placer.places(times)
        points = int(places[-1]) + 1
        values = on_grid(values, places, points)
        times = placer.origin + period * np.arange(points)
        if labels is not None:
            labels = _held_labels(labels, places, points)
    values, filled = Holder(options.max_gap, str(path)).feed(values)
    return Series(
        path.stem,
        values,
        labels,
        int(_SHARE * len(values)),
        times,
        period,
        columns.values,
        filled if filled.any() else None,
        sampling,
        source=str(path),
    )


def _held_labels(labels: Labels, places: np.ndarray, points: int) -> Labels:
    """A point is anomalous if one of its rows is; a missing row is as the row before."""
    marks = np.zeros(points, np.uint8)
    np.maximum.at(marks, places, labels)
    known = np.unique(places)
    return marks[known[np.searchsorted(known, np.arange(points), side="right") - 1]]


def windows_file(path: Path) -> Path | None:
    """NAB's windows for a file: beside or above it, there also in labels/, as in NAB's own tree."""
    folders = list(path.absolute().parents)[:4]
    tried = [folder / inside / WINDOWS for folder in folders for inside in ("", "labels")]
    return next(filter(Path.is_file, tried), None)


def _windows(path: Path, options: DataOptions) -> list[tuple[float, float]]:
    """NAB's windows of a file, seconds since 1970. Its keys are <group>/<file>."""
    import pandas as pd

    file = Path(options.windows) if options.windows else windows_file(path)
    if file is None or not file.is_file():
        raise DataError(
            "NAB's windows were not found", where=path, mend="--data.windows combined_windows.json"
        )
    key = f"{path.parent.name}/{path.name}"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        found = pd.to_datetime([stamp for pair in known[key] for stamp in pair], utc=True)
        pairs = np.asarray(found.to_numpy("datetime64[ns]"), np.int64).reshape(-1, 2) / 1e9
    except KeyError:
        raise DataError(f"there are no windows of {key!r}", where=file) from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"the windows cannot be read: {error}", where=file) from error
    return [(float(a), float(b)) for a, b in pairs]


def _within(place: int, rows: int, path: Path) -> int:
    if place > rows:
        raise DataError(f"the name says row {place}, the file has {rows}", where=path)
    return place
