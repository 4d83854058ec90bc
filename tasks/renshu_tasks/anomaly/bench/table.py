"""From rows to a leaderboard: a line a detector, failures counted and never left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renshu.errors import DataError
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.metrics.events import Scores

RESAMPLES = 2000
FEWEST = 10
"""With fewer series there is no interval over series and no diagram of ranks."""


@dataclass(frozen=True)
class Standing:
    """One detector over all series.

    Attributes:
        detector: its name.
        value: mean over series of the mean over seeds; a failed job counts as 0.
        low, high: 95 % bootstrap interval over series; None with fewer than FEWEST.
        seeds: mean over series of the deviation between seeds; None with one seed.
        jobs, failed: how many ran, and how many of them have no result.
        seconds: mean time of a job that has one.
    """

    detector: str
    value: float
    low: float | None
    high: float | None
    seeds: float | None
    jobs: int
    failed: int
    seconds: float | None


def one_measure(rows: Sequence[Row]) -> str:
    """The mode of VUS that all rows have. Raises DataError for rows of several.

    The window is that of the series, by one rule for all rows.
    """
    modes = sorted({row["mode"] for row in rows})
    if len(modes) != 1:
        raise DataError(
            f"rows of several modes of VUS: {', '.join(modes)}",
            allowed="one mode in one table",
            mend="--mode exact --from-scores FOLDER computes all in one",
        )
    return modes[0]


def usable(rows: Sequence[Row]) -> list[Row]:
    """Rows of series on which a detector can be right or wrong.

    A series without that is left out for all detectors alike; a detector that fails on one that
    has it is not. Raises DataError if nothing is left.
    """
    found = [row for row in rows if not row["unusable"]]
    if not found:
        reasons = sorted({row["reason"] for row in rows})
        raise DataError(f"no series can be measured: {'; '.join(reasons[:3])}")
    return found


def matrix(rows: Sequence[Row], figure: str) -> tuple[list[str], list[str], Scores]:
    """Series, detectors, and the mean over seeds float64 [series, detectors].

    A failed job counts as 0, and so does a cell without any job. Unusable series are left out.
    """
    rows = usable(rows)
    series = sorted({row["series"] for row in rows})
    detectors = sorted({row["detector"] for row in rows})
    place = {name: i for i, name in enumerate(series)}, {n: i for i, n in enumerate(detectors)}
    total, count = np.zeros((2, len(series), len(detectors)))
    for row in rows:
        cell = place[0][row["series"]], place[1][row["detector"]]
        total[cell] += row[figure] or 0.0
        count[cell] += 1
    return series, detectors, np.divide(total, count, np.zeros_like(total), where=count > 0)


def standings(rows: Sequence[Row], figure: str = "vus_pr", seed: int = 0) -> list[Standing]:
    """All detectors, the best first. Raises DataError for rows of several modes."""
    one_measure(rows)
    rows = usable(rows)
    series, detectors, values = matrix(rows, figure)
    drawn = np.random.default_rng(seed).integers(len(series), size=(RESAMPLES, len(series)))
    found = []
    for name, column in zip(detectors, values.T, strict=True):
        own = [row for row in rows if row["detector"] == name]
        low = high = None
        if len(series) >= FEWEST:
            low, high = np.quantile(column[drawn].mean(axis=1), [0.025, 0.975]).tolist()
        times = [row["seconds"] for row in own if row.get("seconds") is not None]
        found.append(
            Standing(
                name,
                float(column.mean()),
                low,
                high,
                _between_seeds(own, figure),
                len(own),
                sum(row.get("reason") is not None for row in own),
                float(np.mean(times)) if times else None,
            )
        )
    return sorted(found, key=lambda one: -one.value)


def _between_seeds(rows: Sequence[Row], figure: str) -> float | None:
    runs: dict[str, list[float]] = {}
    for row in rows:
        runs.setdefault(row["series"], []).append(row[figure] or 0.0)
    spreads = [float(np.std(values, ddof=1)) for values in runs.values() if len(values) > 1]
    return float(np.mean(spreads)) if spreads else None


def by_group(rows: Sequence[Row], figure: str = "vus_pr") -> tuple[list[str], list[str], Scores]:
    """Data sets, detectors, and means over their series float64 [groups, detectors]."""
    rows = usable(rows)
    groups = sorted({row["group"] for row in rows})
    detectors = sorted({row["detector"] for row in rows})
    means = np.full((len(groups), len(detectors)), np.nan)
    for i, group in enumerate(groups):
        _, known, values = matrix([row for row in rows if row["group"] == group], figure)
        for name, column in zip(known, values.T, strict=True):
            means[i, detectors.index(name)] = column.mean()
    return groups, detectors, means
