"""Means over cases that say what they count, with bootstrap intervals over patients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.segmentation.metrics.cases import FIGURES, Row

RESAMPLES = 1000
STATES = ("absent", "missed", "invented")

Values = NDArray[np.float64]


def summarise(
    cases: Sequence[Sequence[Row]], patients: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """Means of `case_metrics` over cases, ready for JSON.

    Args:
        cases: the rows of each case; a case may lack a class that nobody looked for in it.
        patients: whose case each is; patients are resampled, not cases.
        seed: of the resampling.

    Returns:
        For each figure the mean over classes of the class means, and under `per_class` those
        themselves, each {"value", "low", "high", "used", "absent", "missed", "invented"}: value
        and 95 % interval (percentile bootstrap, Efron 1979), None where nothing is defined; how
        many values were used, how many of these were of missed or invented structures, and how
        many were left out because the structure is in neither mask.
    """
    names = list(dict.fromkeys(row["class"] for rows in cases for row in rows))
    found = [{row["class"]: row for row in rows} for rows in cases]
    table = [[rows.get(name, {}) for name in names] for rows in found]
    states = [[row.get("state") for row in rows] for rows in table]
    draws = _draws(patients, seed)
    summary: dict[str, Any] = {"cases": len(cases), "patients": len(set(patients))}
    per_class: list[dict[str, Any]] = [{"class": name} for name in names]
    for figure in FIGURES:
        values = np.array([[row.get(figure) for row in rows] for rows in table], np.float64)
        values = values.reshape(len(cases), len(names))
        summary[figure] = _estimate(values, states, draws)
        for column, row in enumerate(per_class):
            row[figure] = _estimate(values[:, [column]], [[s[column]] for s in states], draws)
    return summary | {"per_class": per_class}


def in_words(estimate: dict[str, Any], digits: int = 3) -> str:
    """`0.861 (95 %: 0.840 to 0.879; 38 used, 2 absent, 1 missed, 0 invented)`."""
    numbers = [estimate[key] for key in ("value", "low", "high")]
    value, low, high = ("–" if one is None else f"{one:.{digits}f}" for one in numbers)
    counts = ", ".join(f"{estimate[key]} {key}" for key in ("used", *STATES))
    return f"{value} (95 %: {low} to {high}; {counts})"


def _draws(patients: Sequence[str], seed: int) -> Values:
    """How often each case was drawn: [RESAMPLES, cases]; cases of a patient come together."""
    unit = np.unique(np.array(patients, dtype=str), return_inverse=True)[1]
    units = int(unit.max()) + 1 if len(unit) else 0
    if units < 2:
        return np.zeros((0, len(unit)))
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), RESAMPLES)
    return drawn[:, unit].astype(np.float64)


def _estimate(
    values: Values, states: Sequence[Sequence[str | None]], draws: Values
) -> dict[str, Any]:
    """One figure of [cases, classes], NaN where it is not defined."""
    counts = Counter(state for row in states for state in row)
    point = _class_mean(np.ones((1, len(values))), values)[0]
    spread = _class_mean(draws, values)
    spread = spread[np.isfinite(spread)]
    ends = [None, None]
    if len(spread) and np.ptp(spread) > 0:  # resamples that all agree say nothing of certainty
        ends = [float(end) for end in np.percentile(spread, [2.5, 97.5])]
    return {
        "value": float(point) if np.isfinite(point) else None,
        "low": ends[0],
        "high": ends[1],
        "used": int(np.isfinite(values).sum()),
        **{state: counts[state] for state in STATES},
    }


def _class_mean(draws: Values, values: Values) -> Values:
    """Mean over classes of the mean over drawn cases, [R]; NaN where no class has a value."""
    there = np.isfinite(values)
    sums, counts = draws @ np.where(there, values, 0.0), draws @ there.astype(np.float64)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    classes = (counts > 0).sum(1)
    none = np.full(len(draws), np.nan)
    return np.divide(means.sum(1), classes, out=none, where=classes > 0)
