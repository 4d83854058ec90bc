"""The rule for time stamps, gaps and missing values: one for training, prediction and streams.

Time stamps must ascend by one period, give or take a tenth. Missing rows are put in; a missing
value holds the last one before it, so nothing looks ahead. Gaps longer than `max_gap` are refused.
With a period given, rows are averaged over periods instead, whatever their time stamps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from renshu.errors import DataError
from renshu_tasks.anomaly.series import Values

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TOLERANCE = 0.1
_LARGEST_STRETCH = 100_000_000


class Placer:
    """Places rows on regular points by their time stamps, one stretch of a file after another.

    Args:
        period: seconds between points.
        averaging: several rows may share a point, whatever their time stamps.
        where: the file, for errors.
    """

    def __init__(self, period: float, averaging: bool, where: str) -> None:
        self.period, self.averaging, self.where = period, averaging, where
        self.origin = 0.0
        self._last: tuple[float, int] | None = None
        self._rows = 0

    def places(self, times: Floats) -> Ints:
        """float64 [N] → the point of each row, int64 [N], counted from the file's first row.

        Raises DataError for stamps that are missing, repeat, descend or keep no common period.
        """
        first = self._last is None
        if first:
            self.origin = float(times[0])
        before = (self.origin, -1) if self._last is None else self._last
        joined = np.concatenate([[before[0]], times])
        self._check_order(joined[first:])
        if self.averaging:
            found = np.floor((times - self.origin) / self.period + 1e-9)
            last = float(found[-1])
        else:
            counts = np.diff(joined) / self.period
            counts[0] = 1 if first else counts[0]
            self._check_period(counts, len(counts) - first)
            found = before[1] + np.cumsum(np.maximum(np.rint(counts), 1))
            last = float(found[-1])
        if last - before[1] > _LARGEST_STRETCH:
            raise DataError(
                f"the time stamps span more than {_LARGEST_STRETCH:,} periods of {self.period:g} s",
                where=self.where,
                mend="a longer --data.period",
            )
        self._last = float(times[-1]), int(last)
        self._rows += len(times)
        return found.astype(np.int64)

    def _row(self, number: int) -> str:
        return f"{self.where}, row {self._rows + number + 1}"

    def _check_order(self, joined: Floats) -> None:
        offset = 1 if self._last is not None else 0
        bad = ~np.isfinite(joined)
        if bad.any():
            row = self._row(int(bad.argmax()) - offset)
            raise DataError("the time stamp is missing", where=row)
        steps = np.diff(joined)
        if (steps <= 0).any():
            row = int((steps <= 0).argmax())
            what = "repeats" if steps[row] == 0 else f"lies {-steps[row]:g} s before"
            more = int((steps <= 0).sum()) - 1
            raise DataError(
                f"the time stamp {what} that of the row before; {more} more such rows",
                where=self._row(row + 1 - offset),
                allowed="ascending time stamps",
                mend="sort the rows and merge those of one time, or --data.sampling rows",
            )

    def _check_period(self, counts: Floats, steps: int) -> None:
        off = np.abs(counts - np.maximum(np.rint(counts), 1)) > _TOLERANCE
        if off.any():
            row = int(off.argmax())
            raise DataError(
                f"the sampling is irregular: {int(off.sum())} of {steps} steps are no"
                f" multiple of {self.period:g} s; the first is {counts[row] * self.period:g} s",
                where=self._row(row),
                allowed=f"one period, give or take {_TOLERANCE:.0%}, with gaps",
                mend=f"--data.period {self.period:g} averages over periods; --data.sampling rows"
                " takes the rows as they are",
            )


def on_grid(values: Values, places: Ints, points: int) -> Values:
    """Rows [N, C] → points [T, C]: the mean of the rows of a point, NaN where there is none."""
    if np.array_equal(places, np.arange(points)):
        return values
    known = np.isfinite(values)
    sums = np.zeros((points, values.shape[1]))
    counts = np.zeros((points, values.shape[1]), np.int64)
    np.add.at(sums, places, np.where(known, values, 0.0))
    np.add.at(counts, places, known)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


class Holder:
    """Fills NaN with the last value before it; at the beginning with the first value there is.

    Args:
        max_gap: longest run that is filled.
        where: the file, for errors.
    """

    def __init__(self, max_gap: int, where: str) -> None:
        self.max_gap, self.where = max_gap, where
        self._last: Floats | None = None
        self._run: Ints | None = None
        self._points = 0

    def feed(self, values: Values) -> tuple[Values, NDArray[np.bool_]]:
        """The next points [T, C] → the same without NaN, and bool [T]: where one was filled.

        Raises DataError for a run of more than `max_gap`, and for a channel without values.
        """
        missing = np.isnan(values)
        filled = missing.any(axis=1)
        if self._run is None:
            self._run = np.zeros(values.shape[1], np.int64)
        if filled.any():
            values = values.copy()
            for channel in np.flatnonzero(missing.any(axis=0)):
                self._fill(values[:, channel], missing[:, channel], int(channel))
        ends = missing[::-1].argmin(axis=0)  # of the run at the end of each channel
        self._run = np.where(missing.all(axis=0), self._run + len(values), ends)
        self._last = values[-1]
        self._points += len(values)
        return values, filled

    def _fill(self, column: Floats, gone: NDArray[np.bool_], channel: int) -> None:
        assert self._run is not None
        where = f"{self.where}, channel {channel}"
        self._check_runs(gone, int(self._run[channel]), where)
        known = np.flatnonzero(~gone)
        if not len(known) and self._last is None:
            raise DataError("the channel begins without a value", where=where)
        last = np.searchsorted(known, np.arange(len(gone)), side="right") - 1
        carried = column[known[0]] if self._last is None else self._last[channel]
        column[:] = np.where(last < 0, carried, column[known[last]] if len(known) else carried)

    def _check_runs(self, gone: NDArray[np.bool_], before: int, where: str) -> None:
        edges = np.flatnonzero(np.diff(gone.astype(np.int8), prepend=0, append=0))
        lengths = edges[1::2] - edges[::2]
        if gone[0]:
            lengths[0] += before
        if len(lengths) and lengths.max() > self.max_gap:
            longest = int(lengths.argmax())
            raise DataError(
                f"a gap of {lengths[longest]} points",
                where=f"{where}, from point {self._points + edges[2 * longest]}",
                allowed=f"up to {self.max_gap} points, which hold the value before",
                mend=f"--data.max_gap {lengths[longest]}, or a longer --data.period; where only"
                " time stamps are missing, --data.sampling rows",
            )
