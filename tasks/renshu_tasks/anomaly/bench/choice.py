"""A combination of detectors that is chosen on the tuning series alone.

Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004: start with the best
detector, add whichever helps most, stop when none does. Scores of different detectors have no
common scale, so that it is ranks within the series that are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from renshu.errors import DataError
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.bench.stored import read_scores, read_stored
from renshu_tasks.anomaly.metrics.events import Labels, Scores
from renshu_tasks.anomaly.metrics.volume import vus


@dataclass(frozen=True)
class Ranked:
    """A series with the ranks of every detector's first run: of each point, in (0, 1]."""

    name: str
    labels: Labels
    window: int
    mode: str
    ranks: dict[str, Scores]

    def value(self, detectors: Sequence[str]) -> float:
        """VUS-PR of the mean rank of some detectors, of those that have scores here; else 0."""
        known = [self.ranks[name] for name in detectors if name in self.ranks]
        if not known:
            return 0.0
        return vus(self.labels, np.mean(known, axis=0), self.window, self.mode).pr


def read_ranked(folder: Path, rows: Sequence[Row]) -> list[Ranked]:
    """All series of the rows with the scores that are stored beside them."""
    found: dict[str, Ranked] = {}
    for row in rows:
        if row.get("reason") is not None or row["seed"]:
            continue
        name = row["series"]
        if name not in found:
            series = read_stored(folder, row)
            assert series.labels is not None
            labels = series.labels[series.train_end :] == 1
            found[name] = Ranked(name, labels, row["window"], row["mode"], {})
        found[name].ranks[row["detector"]] = _ranks(read_scores(folder, row["key"])[0])
    return list(found.values())


def choose(tuning: Sequence[Ranked], most: int = 5) -> list[str]:
    """The detectors to combine, in the order in which they were added; one can count twice.

    Raises DataError without tuning series.
    """
    if not tuning:
        raise DataError("there is no tuning series to choose on", mend="--part all, or tuning")
    names = sorted({name for series in tuning for name in series.ranks})
    chosen: list[str] = []
    best = -1.0
    while len(chosen) < most:
        tried = {name: _mean(tuning, [*chosen, name]) for name in names}
        name = max(names, key=tried.__getitem__)
        if tried[name] <= best:
            break
        chosen, best = [*chosen, name], tried[name]
    return chosen


def _mean(series: Sequence[Ranked], detectors: Sequence[str]) -> float:
    return float(np.mean([one.value(detectors) for one in series]))


def _ranks(scores: Scores) -> Scores:
    """Ranks over the number of points; ties share their mean."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place] / len(scores)
