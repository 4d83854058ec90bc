"""A combination of detectors that is chosen on the tuning series alone.

Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004: start with the best
detector, add whichever helps most, stop when none does; against choosing by chance on few series,
this is repeated with random halves of the detectors, and all that was added counts. Scores of
different detectors have no common scale, so that they are put on one first; which one, and how far
they are smoothed, is chosen in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from renshu.errors import DataError
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.bench.stored import read_scores, read_stored
from renshu_tasks.anomaly.metrics.events import Labels, Scores
from renshu_tasks.anomaly.metrics.volume import vus

MOST, BAGS = 5, 20
"""Detectors that one selection adds, and how many selections there are."""

WIDTHS = (0.0, 0.25, 0.5, 1.0)
"""Of the smoothing, in windows of the metric."""


def _ranks(scores: Scores) -> Scores:
    """Ranks over the number of points; ties share their mean."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place] / len(scores)


def _deviations(scores: Scores) -> Scores:
    """Standard deviations from the mean."""
    return (scores - scores.mean()) / (scores.std() or 1.0)


def _quartiles(scores: Scores) -> Scores:
    """Distances of the quartiles from the median: what is far out stays far out."""
    low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75])
    return (scores - middle) / ((high - low) or scores.std() or 1.0)


SCALES: dict[str, Callable[[Scores], Scores]] = {
    "ranks": _ranks,
    "deviations": _deviations,
    "quartiles": _quartiles,
}
"""Common scales of the scores within a series; none sees a label."""


@dataclass(frozen=True)
class Combination:
    """The mean of some detectors' scores.

    Attributes:
        detectors: sorted; one can count several times.
        scale: a name of SCALES.
        width: of a moving mean, in windows of the metric; 0: none.
    """

    detectors: tuple[str, ...]
    scale: str
    width: float

    def __str__(self) -> str:
        smoothed = f", smoothed over {self.width:g} windows" if self.width else ""
        parts = [f"{times} {name}" for name, times in Counter(self.detectors).most_common()]
        return f"{' + '.join(parts)} by {self.scale}{smoothed}"

    def with_one(self, detector: str) -> Combination:
        """The same with one detector more."""
        return replace(self, detectors=tuple(sorted((*self.detectors, detector))))


@dataclass(frozen=True)
class Scored:
    """A series with the scores of every detector's first run, float64 [T] each."""

    name: str
    labels: Labels
    window: int
    mode: str
    scores: dict[str, Scores]
    _scaled: dict[tuple[str, str, float], Scores] = field(default_factory=dict, compare=False)

    def single(self, detector: str) -> float:
        """VUS-PR of a detector; 0 where it failed."""
        if detector not in self.scores:
            return 0.0
        return vus(self.labels, self.scores[detector], self.window, self.mode).pr

    def value(self, combination: Combination) -> float:
        """VUS-PR of a combination, of those detectors that have scores here; else 0."""
        scale, width = combination.scale, combination.width
        known = [self._put(d, scale, width) for d in combination.detectors if d in self.scores]
        if not known:
            return 0.0
        return vus(self.labels, np.mean(known, axis=0), self.window, self.mode).pr

    def _put(self, detector: str, scale: str, width: float) -> Scores:
        from scipy.ndimage import uniform_filter1d

        key = detector, scale, width
        if key not in self._scaled:
            scaled = SCALES[scale](self.scores[detector])
            points = max(1, round(width * self.window))
            self._scaled[key] = uniform_filter1d(scaled, points, mode="nearest")
        return self._scaled[key]


def read_scored(folder: Path, rows: Sequence[Row]) -> list[Scored]:
    """All series of the rows with the scores that are stored beside them."""
    found: dict[str, Scored] = {}
    for row in rows:
        if row.get("reason") is not None or row["seed"]:
            continue
        name = row["series"]
        if name not in found:
            series = read_stored(folder, row)
            assert series.labels is not None
            labels = series.labels[series.train_end :] == 1
            found[name] = Scored(name, labels, row["window"], row["mode"], {})
        found[name].scores[row["detector"]] = read_scores(folder, row["key"])[0]
    return list(found.values())


def choose(tuning: Sequence[Scored], seed: int = 0) -> Combination:
    """A combination of a high mean VUS-PR on tuning series; `seed` draws the bags of detectors.

    Raises DataError without tuning series.
    """
    if not tuning:
        raise DataError("there is no tuning series to choose on", mend="--part all, or tuning")
    names = sorted({name for series in tuning for name in series.scores})

    @cache
    def value(combination: Combination) -> float:
        return float(np.mean([one.value(combination) for one in tuning]))

    starts = [Combination((), scale, width) for scale, width in product(SCALES, WIDTHS)]
    start = starts[int(np.argmax([value(_grown(start, names, value)) for start in starts]))]
    rng = np.random.default_rng(seed)
    chosen: list[str] = []
    for _ in range(BAGS):
        bag = rng.choice(names, (len(names) + 1) // 2, replace=False).tolist()
        chosen += _grown(start, bag, value).detectors
    return replace(start, detectors=tuple(sorted(chosen)))


def _grown(
    chosen: Combination, names: Sequence[str], value: Callable[[Combination], float]
) -> Combination:
    """With detectors added as long as one helps, at most MOST."""
    while len(chosen.detectors) < MOST:
        best = max((chosen.with_one(name) for name in names), key=value)
        if value(best) <= value(chosen):
            break
        chosen = best
    return chosen
