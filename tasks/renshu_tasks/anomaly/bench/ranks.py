"""Mean ranks over series and which of their differences are more than chance.

Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006: Friedman's test,
then Nemenyi's critical difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from renshu_tasks.anomaly.metrics.events import Scores


@dataclass(frozen=True)
class Ranks:
    """Mean ranks, the best first.

    Attributes:
        names: of the detectors.
        means: their mean ranks; 1 is the best.
        critical: ranks further apart than this differ at the 5 % level.
        p_value: of Friedman's test that all are alike.
        groups: first and last place of each longest stretch that does not differ.
    """

    names: Sequence[str]
    means: Sequence[float]
    critical: float
    p_value: float
    groups: Sequence[tuple[int, int]]


def mean_ranks(names: list[str], values: Scores) -> Ranks:
    """Ranks of float64 [series, detectors], higher = better; ties share their mean rank."""
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    series, count = values.shape
    means = rankdata(-values, axis=1).mean(axis=0)
    quantile = float(studentized_range.ppf(0.95, count, np.inf)) / np.sqrt(2)
    critical = float(quantile * np.sqrt(count * (count + 1) / (6 * series)))
    p_value = float(friedmanchisquare(*values.T).pvalue) if count > 2 else float("nan")
    order = np.argsort(means, kind="stable")
    ordered = means[order]
    last = np.searchsorted(ordered, ordered + critical, "right") - 1
    groups = [
        (i, int(end))
        for i, end in enumerate(last)
        if end > i and (i == 0 or end > last[i - 1])  # not inside the stretch before
    ]
    return Ranks([names[i] for i in order], ordered.tolist(), critical, p_value, groups)
