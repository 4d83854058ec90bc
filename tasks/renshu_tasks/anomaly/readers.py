"""From a path to a Series: finds the format, reads, and checks the training part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.formats import READERS, TSB_AD, UCR, windows_file
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.series import Series
from renshu_tasks.anomaly.tables import head_of

TABLES = (".csv", ".parquet")


def read_series(path: str | Path, options: DataOptions | None = None) -> Series:
    """One series, checked.

    Raises DataError with file and row for what cannot be used, ConfigError for options that do not
    fit the file.
    """
    options, path = options or DataOptions(), Path(path)
    if not path.exists():
        raise DataError("there is no such file", where=path)
    name = format_of(path) if options.format == "auto" else options.format
    series = READERS[name](path, options)
    if options.train_end is not None:
        if options.train_end >= len(series):
            raise ConfigError(
                f"{options.train_end} leaves nothing to score of {len(series)} points",
                where="data.train_end",
                allowed=f"1 to {len(series) - 1}",
            )
        series = replace(series, train_end=options.train_end)
    check_train(series, options)
    return series


def format_of(path: Path) -> str:
    """The format of a file or folder, by its name and head. Raises DataError if there is none."""
    if path.is_dir():
        if all((path / kind).is_dir() for kind in ("train", "test", "test_label")):
            return "smd"
        raise DataError(
            "a folder of one series has train/, test/ and test_label/",
            where=path,
            mend="give one file; renshu bench anomaly --data takes folders of files",
        )
    if TSB_AD.match(path.stem):
        return "tsb_ad"
    if path.suffix.lower() == ".txt" and UCR.match(path.stem):
        return "ucr"
    if path.suffix.lower() not in TABLES:
        raise DataError(
            f"files that end in {path.suffix or 'nothing'} are not read",
            where=path,
            allowed=".csv, .parquet, or a UCR name that ends in _TRAIN_FIRST_LAST.txt",
        )
    known = head_of(path) == ["timestamp", "value"] and windows_file(path) is not None
    return "nab" if known else "csv"


def check_train(series: Series, options: DataOptions) -> None:
    """Raises DataError for a training part with labelled anomalies, and for labels all alike.

    Labels are looked at here and nowhere else before the evaluation: a detector never sees them.
    """
    if series.labels is None:
        return
    inside = int(series.labels[: series.train_end].sum())
    total = int(series.labels.sum())
    if total == len(series):
        raise DataError(
            "every point is labelled anomalous", where=series.source, allowed="some normal points"
        )
    if inside and inside == total:
        raise DataError(
            f"all {total} labelled anomalies lie in the training part",
            where=f"{series.source}, rows 0 to {series.train_end - 1}",
            mend="a smaller --data.train_end: nothing is left to measure",
        )
    if inside and options.anomalies_in_train == "fail":
        row = int(series.labels[: series.train_end].argmax())
        raise DataError(
            f"{inside} points of the training part are labelled anomalous, the first in row {row}",
            where=f"{series.source}, rows 0 to {series.train_end - 1}",
            allowed="a normal training part",
            mend="a smaller --data.train_end, or --data.anomalies_in_train allow",
        )
