"""The files of a benchmark's folder: each series once, and the scores of each job.

With them alone every figure can be computed again. All are safetensors: nothing in them runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from renshu.errors import DataError
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.metrics.events import Scores
from renshu_tasks.anomaly.series import Series

FORMAT = 1


def write_series(folder: Path, row: Row, series: Series) -> None:
    """Keep the labelled series of a job's row; one that is there stays."""
    path = _series_path(folder, row)
    if path.is_file():
        return
    assert series.labels is not None
    about = {
        "name": series.name,
        "train_end": series.train_end,
        "period": series.period,
        "channels": list(series.channels),
        "origin": series.origin,
        "source": series.source,
    }
    _write(path, {"values": series.values, "labels": series.labels}, about)


def read_stored(folder: Path, row: Row) -> Series:
    """The series of a job's row.

    Raises DataError for a file that is missing or damaged, or has other labels than were measured.
    """
    path = _series_path(folder, row)
    arrays, about = _read(path)
    series = Series(**arrays, **about)
    if labels_digest(series) != row["labels"]:
        raise DataError(
            "the labels are not those that the row was measured on",
            where=path,
            allowed=f"labels with the digest {row['labels']}",
        )
    return series


def labels_digest(series: Series) -> str:
    """SHA-256 of the labels behind the training part."""
    return array_digest(np.asarray(series.labels)[series.train_end :])


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's bytes: what a table says of a file that was handed in with it."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def write_scores(folder: Path, key: str, scores: Scores, row: Row) -> None:
    """Keep a job's scores float64 [T] with all that its row says, whole or not at all."""
    _write(_path(folder / "scores", key), {"scores": scores}, row)


def read_scores(folder: Path, key: str) -> tuple[Scores, Row]:
    """A job's scores and row. Raises DataError for a file that is missing, damaged or altered."""
    path = _path(folder / "scores", key)
    arrays, row = _read(path)
    if array_digest(arrays["scores"]) != row["scores"]:
        raise DataError(
            "the scores are not those that the row was measured on",
            where=path,
            allowed=f"scores with the digest {row['scores']}",
        )
    return arrays["scores"], row


def score_keys(folder: Path) -> Iterator[str]:
    """The keys of all jobs whose scores are here."""
    for path in sorted((folder / "scores").glob("*.safetensors")):
        yield path.stem


def _series_path(folder: Path, row: Row) -> Path:
    """Other data or other code, which may read or plant otherwise, have another file."""
    return _path(folder / "series", f"{row['series']}@{row['stamp']}@{row['code']}")


def _path(folder: Path, name: str) -> Path:
    return folder / f"{file_name(name)}.safetensors"


def file_name(name: str) -> str:
    """A name that is one file's, whatever is in it."""
    return quote(name, safe="").replace(".", "%2E")


def _write(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    text = json.dumps({"format": FORMAT, **about}, allow_nan=False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(save(plain, {"about": text}))
    temporary.replace(path)


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    try:
        with safe_open(path, "numpy") as file:
            about = json.loads(file.metadata()["about"])
            if about.pop("format") != FORMAT:
                raise DataError("a file of another format", where=path, allowed=f"format {FORMAT}")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except FileNotFoundError:
        raise DataError("the file is missing", where=path) from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the file is damaged: {error}", where=path) from error
