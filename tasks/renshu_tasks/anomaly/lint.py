"""What is wrong with a labelled series as a benchmark, before any detector is measured on it.

Wu and Keogh, Current Time Series Anomaly Detection Benchmarks are Flawed and are Creating the
Illusion of Progress, IEEE TKDE 2021, name four flaws: triviality, unrealistic density, mislabelled
ground truth, and events that run to the end. Here they are checks, with what the data of others
have shown since: training parts that are repeated in the test part or hold anomalies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from renshu_tasks.anomaly.metrics.events import Labels, Scores, runs
from renshu_tasks.anomaly.metrics.window import metric_window
from renshu_tasks.anomaly.series import Series

DENSE = 0.1
END = 0.1
SLACK = 3
"""Points beside an event in which a one-liner's alarm still counts as on it."""

SEGMENT = 64
COPIED = 0.2
LARGEST = 1e100


class Finding(NamedTuple):
    """One flaw.

    Attributes:
        code: the check's name.
        what: what is wrong, in a sentence.
        rows: first and last row of the series that show it, or None for all of it.
        fatal: no figure of this series means anything.
    """

    code: str
    what: str
    rows: tuple[int, int] | None = None
    fatal: bool = False


@dataclass(frozen=True)
class _View:
    """A series as the checks see it; what is scored lies behind the training part."""

    series: Series
    labels: Labels
    starts: np.ndarray
    stops: np.ndarray

    @property
    def first(self) -> int:
        return self.series.train_end


def lint(series: Series) -> list[Finding]:
    """All flaws of a series; with a fatal one, only that. No check reads a score."""
    if series.labels is None:
        return [Finding("no_labels", "there are no labels: nothing can be measured", fatal=True)]
    labels = series.labels == 1
    scored = labels[series.train_end :]
    starts, stops = (edge + series.train_end for edge in runs(scored))
    view = _View(series, labels, starts, stops)
    found = [finding for check in _FATAL for finding in check(view)]
    if not found:  # else there is nothing that the others could compare
        found = [finding for check in _CHECKS for finding in check(view)]
    return found


def _labels_alike(view: _View) -> Iterator[Finding]:
    scored = view.labels[view.first :]
    if scored.all() or not scored.any():
        value = int(scored.any())
        what = f"every label behind the training part is {value}: no detector can be right or wrong"
        yield Finding("labels_alike", what, (view.first, len(view.labels) - 1), fatal=True)


def _in_training(view: _View) -> Iterator[Finding]:
    inside = np.flatnonzero(view.labels[: view.first])
    if len(inside):
        what = f"{len(inside)} points of the training part are labelled anomalous"
        yield Finding("anomalies_in_training", what, (int(inside[0]), int(inside[-1])))


def _constant(view: _View) -> Iterator[Finding]:
    for name, channel in zip(view.series.channels, view.series.values.T, strict=True):
        if channel.min() == channel.max():
            yield Finding("constant", f"channel {name} is {channel[0]:g} throughout")


def _huge(view: _View) -> Iterator[Finding]:
    rows = np.flatnonzero(np.abs(view.series.values).max(axis=1) > LARGEST)
    if len(rows):
        what = f"values beyond {LARGEST:g}: detectors refuse them"
        yield Finding("huge", what, (int(rows[0]), int(rows[-1])), fatal=True)


def _short(view: _View) -> Iterator[Finding]:
    window, scored = metric_window(view.series.values), len(view.labels) - view.first
    if scored < window.points:
        what = f"{scored} points are scored, fewer than the window of {window.points}"
        yield Finding("shorter_than_window", what)


def _dense(view: _View) -> Iterator[Finding]:
    share = float(view.labels[view.first :].mean())
    if share > DENSE:
        what = f"{share:.0%} of the scored points are anomalous, more than {DENSE:.0%}"
        yield Finding("dense", f"{what}: that is another class, not an anomaly")


def _at_the_end(view: _View) -> Iterator[Finding]:
    last = len(view.labels) - int(END * (len(view.labels) - view.first))
    if (view.starts >= last).all():
        what = f"every event lies in the last {END:.0%}: alarming the end is enough"
        yield Finding("at_the_end", what, (int(view.starts[0]), int(view.stops[-1]) - 1))


def _one_liner(view: _View) -> Iterator[Finding]:
    """An expression of one line whose largest values are all on events, with every event hit."""
    near = np.zeros(len(view.labels), dtype=bool)
    bounds = [
        (max(start - SLACK, view.first), stop + SLACK)
        for start, stop in zip(view.starts, view.stops, strict=True)
    ]
    for start, stop in bounds:
        near[start:stop] = True
    outside = ~near[view.first :]
    if not outside.any():
        return
    for name, expression in ONE_LINERS.items():
        scores = expression(view.series.values)
        lowest = min(scores[start:stop].max() for start, stop in bounds)
        if lowest > scores[view.first :][outside].max():
            yield Finding("one_liner", f"{name} > {lowest:.4g} finds every event and nothing else")
            return


def _value(values: Scores) -> Scores:
    return values.max(axis=1)


def _minus(values: Scores) -> Scores:
    return -values.min(axis=1)


def _difference(values: Scores) -> Scores:
    return np.abs(np.diff(values, axis=0, prepend=values[:1])).max(axis=1)


def _spread(values: Scores, window: int = 5) -> Scores:
    padded = np.pad(values, [(window // 2, window // 2), (0, 0)], mode="edge")
    return sliding_window_view(padded, window, axis=0).std(axis=2).max(axis=1)


def _stillness(values: Scores) -> Scores:
    return -_spread(values)


ONE_LINERS: dict[str, Callable[[Scores], Scores]] = {
    "x": _value,
    "-x": _minus,
    "|diff(x)|": _difference,
    "movstd(x, 5)": _spread,
    "-movstd(x, 5)": _stillness,
}


def _training_repeated(view: _View) -> Iterator[Finding]:
    blocks = np.arange(0, view.first - SEGMENT + 1, SEGMENT)
    blocks = blocks[:: max(1, len(blocks) // 100)]  # a sample: each is sought in the whole series
    if len(blocks) < 2:
        return
    copies = [_copy(view, int(block), SEGMENT, view.first) for block in blocks]
    found = [copy for copy in copies if copy is not None]
    if len(found) >= COPIED * len(blocks):
        what = f"{len(found)} of {len(blocks)} stretches of the training part come again, value by"
        yield Finding(
            "training_in_test", f"{what} value, in what is scored", (min(found), max(found))
        )


def _unlabelled_copy(view: _View) -> Iterator[Finding]:
    """An event that is elsewhere, value by value, and there is no anomaly: one label is wrong."""
    for start, stop in zip(view.starts.tolist(), view.stops.tolist(), strict=True):
        copy = _copy(view, start, stop - start, 0) if stop - start >= 8 else None
        if copy is not None and not view.labels[copy : copy + stop - start].any():
            what = (
                f"the event in rows {start} to {stop - 1} comes again in row {copy}, not labelled"
            )
            yield Finding("label_errata", what, (start, stop - 1))


def _copy(view: _View, start: int, length: int, first: int) -> int | None:
    """The first row from `first` on where the stretch comes again, value by value; not itself."""
    values = view.series.values
    stretch = values[start : start + length]
    if (stretch == stretch[0]).all():
        return None
    # Where the first values agree, the others are compared.
    found = first + np.flatnonzero((values[first : len(values) - length + 1] == stretch[0]).all(1))
    for row in found.tolist():
        if abs(row - start) >= length and np.array_equal(values[row : row + length], stretch):
            return row
    return None


def _misplaced(view: _View) -> Iterator[Finding]:
    """The strongest change near an event lies before or behind it, and nothing of it inside."""
    change = _difference(view.series.values - view.series.values.mean(0))
    usual = float(np.quantile(change, 0.99))
    for start, stop in zip(view.starts.tolist(), view.stops.tolist(), strict=True):
        reach = max(stop - start, SLACK)
        around = np.arange(max(start - reach, 0), min(stop + reach, len(change)))
        near = around[~view.labels[around]]
        if not len(near):
            continue
        peak = int(near[change[near].argmax()])
        if change[peak] > 3 * max(usual, float(change[start : stop + 1].max())):
            what = (
                f"the strongest change is in row {peak}, outside the event that starts in {start}"
            )
            yield Finding("label_misplaced", what, (peak, peak))


_FATAL = (_labels_alike, _huge)
_CHECKS = (
    _in_training,
    _constant,
    _short,
    _dense,
    _at_the_end,
    _one_liner,
    _training_repeated,
    _unlabelled_copy,
    _misplaced,
)
