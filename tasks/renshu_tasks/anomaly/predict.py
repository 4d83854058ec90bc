"""Score files: one row for each of their rows, in order, in constant memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.anomaly.online import Online
from renshu_tasks.anomaly.options import AnomalyOptions, DataOptions
from renshu_tasks.anomaly.readers import TABLES, read_series
from renshu_tasks.anomaly.sampling import Holder, Placer, on_grid
from renshu_tasks.anomaly.series import Values
from renshu_tasks.anomaly.tables import Rows, columns_of, head_of, read_rows
from renshu_tasks.anomaly.thresholds import Verdict

if TYPE_CHECKING:
    from renshu_tasks.anomaly.module import AnomalyDetector


def predict(
    module: AnomalyDetector, files: Iterable[str | Path], options: AnomalyOptions
) -> Iterator[dict[str, Any]]:
    """One row for each row of each file: file, row, time, score, p_value, threshold, alarm.

    Each file is a series of its own. Raises DataError with file and row for what cannot be read.
    """
    for file in map(Path, files):
        placed = _Placed(module, file)
        for rows in _stretches(module, file, options.data):
            yield from placed.feed(rows)
        yield from placed.rest()


def _stretches(module: AnomalyDetector, file: Path, options: DataOptions) -> Iterator[Rows]:
    """The file's rows; tables piece by piece, other formats whole."""
    if file.suffix.lower() in TABLES:
        wanted = DataOptions(time_column=options.time_column, columns=list(module.hparams.channels))
        yield from read_rows(file, columns_of(head_of(file), wanted, file))
    else:
        series = read_series(file, DataOptions(format=options.format, anomalies_in_train="allow"))
        yield Rows(0, series.times, series.values, None)


class _Placed:
    """Rows of a file → points of the model's period → verdicts → rows again."""

    def __init__(self, module: AnomalyDetector, file: Path) -> None:
        told = module.hparams
        self.file, self.online = str(file), Online(module)
        self.on_grid = told.sampling != "rows"
        self.placer = Placer(told.period, told.sampling == "mean", self.file)
        self.holder = Holder(told.max_gap, self.file)
        self.row = 0  # of the next row that goes out
        self.points = 0  # that went in
        self.waiting: Rows | None = None  # rows of a point that may get more
        self.waiting_places = np.empty(0, np.int64)

    def feed(self, rows: Rows) -> Iterator[dict[str, Any]]:
        """The next rows; those of the last point wait where a point averages several."""
        if not self.on_grid or rows.times is None:
            places = self.points + np.arange(len(rows.values))
        else:
            places = self.placer.places(rows.times)
        if self.waiting is not None:
            rows = _joined(self.waiting, rows)
            places = np.concatenate([self.waiting_places, places])
            self.waiting = None
        ready = len(places)
        if self.placer.averaging and self.on_grid:
            ready = int(np.searchsorted(places, places[-1]))
            self.waiting, self.waiting_places = _cut(rows, ready, len(places)), places[ready:]
        if ready:
            yield from self._out(_cut(rows, 0, ready), places[:ready])

    def rest(self) -> Iterator[dict[str, Any]]:
        """What still waits at the end of the file."""
        if self.waiting is not None:
            yield from self._out(self.waiting, self.waiting_places)

    def _out(self, rows: Rows, places: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        local = places - self.points
        points = on_grid(rows.values, local, int(local[-1]) + 1)
        verdicts = self.online.extend(self._held(points))
        self.points += len(points)
        for i, place in enumerate(local.tolist()):
            when = None if rows.times is None else rows.times[i]
            yield self._line(when, verdicts[place])

    def _held(self, points: Values) -> Values:
        return self.holder.feed(points)[0]

    def _line(self, when: float | None, verdict: Verdict) -> dict[str, Any]:
        self.row += 1
        return {
            "file": self.file,
            "row": self.row,
            "time": "" if when is None else when,
            "score": verdict.score,
            "p_value": round(verdict.p_value, 6),
            "threshold": verdict.threshold,
            "alarm": int(verdict.alarm),
        }


def _cut(rows: Rows, start: int, stop: int) -> Rows:
    times = None if rows.times is None else rows.times[start:stop]
    return Rows(rows.first + start, times, rows.values[start:stop], None)


def _joined(before: Rows, after: Rows) -> Rows:
    assert before.times is not None
    assert after.times is not None
    times = np.concatenate([before.times, after.times])
    return Rows(before.first, times, np.concatenate([before.values, after.values]), None)
