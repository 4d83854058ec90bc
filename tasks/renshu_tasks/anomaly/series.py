"""A time series with what is known of it. Labels lie beside the values, never among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from renshu.errors import DataError

Values = NDArray[np.float64]
"""float64 [T, C]: T points in time of C channels."""

Labels = NDArray[np.uint8]
"""uint8 [T]: 1 where a point is anomalous."""


@dataclass(frozen=True, eq=False)
class Series:
    """One series, regularly sampled, in the order of time.

    Attributes:
        name: unique within its collection, such as the file's name.
        values: float64 [T, C], finite (readers fill gaps by their rule and set `filled`).
        labels: uint8 [T] with 0 and 1, or None.
        train_end: rows [0, train_end) are the training part; 0 if there is none.
        times: float64 [T], seconds since 1970 (UTC) or any other origin; None: rows are counted.
        period: seconds from one point to the next; 1.0 without times.
        channels: C names.
        filled: bool [T], rows that were missing; None: none was.
        sampling: how rows became points: each is one, whatever its time; grid: placed by their
            times; mean: averaged over periods.
        origin: "real", or "planted" where events were put in by a generator.
        source: where it is from: path, package, publication.

    Raises DataError for shapes that do not agree, values that are not finite, other labels.
    """

    name: str
    values: Values
    labels: Labels | None = None
    train_end: int = 0
    times: NDArray[np.float64] | None = None
    period: float = 1.0
    channels: Sequence[str] = ()
    filled: NDArray[np.bool_] | None = None
    sampling: Literal["rows", "grid", "mean"] = "rows"
    origin: Literal["real", "planted"] = "real"
    source: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float64:
            raise self._wrong(
                f"values are {self.values.dtype} {list(self.values.shape)}",
                "float64 [points, channels]",
            )
        rows, width = self.values.shape
        if not self.channels:
            object.__setattr__(self, "channels", tuple(f"c{i}" for i in range(width)))
        if len(self.channels) != width:
            raise self._wrong(f"{len(self.channels)} names for {width} channels", "one a channel")
        for what in ("labels", "times", "filled"):
            found = getattr(self, what)
            if found is not None and found.shape != (rows,):
                raise self._wrong(f"{what} {list(found.shape)} for {rows} points", "one a point")
        if self.labels is not None and (
            self.labels.dtype != np.uint8 or self.labels.max(initial=0) > 1
        ):
            raise self._wrong("labels are not 0 and 1", "uint8, 1 where a point is anomalous")
        if not 0 <= self.train_end <= rows:
            raise self._wrong(f"train_end is {self.train_end}", f"0 to {rows}, its points")
        check_finite(self.values, self.name)

    def _wrong(self, what: str, allowed: str) -> DataError:
        return DataError(f"series {self.name}: {what}", where=self.source or None, allowed=allowed)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def train(self) -> Values:
        """float64 [train_end, C]: what a detector may be fitted on. It carries no labels."""
        return self.values[: self.train_end]

    @property
    def events(self) -> list[tuple[int, int]]:
        """First and last row of every run of anomalous points; without labels none."""
        return events_of(self.labels) if self.labels is not None else []

    def part(self, start: int, stop: int) -> Series:
        """Rows [start, stop) as a series of their own, without a training part."""
        cut = slice(start, stop)
        return replace(
            self,
            values=self.values[cut],
            labels=None if self.labels is None else self.labels[cut],
            times=None if self.times is None else self.times[cut],
            filled=None if self.filled is None else self.filled[cut],
            train_end=0,
        )


def events_of(labels: Labels) -> list[tuple[int, int]]:
    """First and last row of every run of ones in uint8 [T]."""
    edges = np.flatnonzero(np.diff(labels.astype(np.int8), prepend=0, append=0))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def check_finite(values: NDArray[np.float64], where: str) -> None:
    """Raises DataError that names the first row and channel that are NaN or infinite."""
    bad = ~np.isfinite(values)
    if bad.any():
        row, channel = np.unravel_index(int(bad.argmax()), bad.shape)
        raise DataError(
            f"{values[row, channel]} in channel {channel}, and {int(bad.sum()) - 1} more such"
            " values",
            where=f"{where}, row {row}",
            allowed="finite numbers",
            mend="--data.max_gap N fills runs of up to N missing points",
        )
