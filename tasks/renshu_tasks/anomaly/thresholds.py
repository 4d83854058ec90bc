"""From scores to decisions: thresholds by a false-alarm budget, p-values, alarms with hysteresis.

All is learned from scores of held-out normal points. Nothing here takes test data or labels.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.detector import Scores

Kind = Literal["conformal", "spot", "dspot"]

TAIL = 0.98
"""Level above which scores are the tail that SPOT fits (Siffer et al. 2017)."""

LARGEST_BUDGET = (1 - TAIL) / 10
"""Of SPOT: it learns from points without alarm, which must not cut the tail short."""

DRIFT = 100
"""Points over which DSPOT averages; so many alarms in a row are the new mean, no event."""

PEAKS = 2000
"""The newest excesses that SPOT keeps."""

_GRID, _ZOOMS, _DRAWS = 24, 4, 50


class Verdict(NamedTuple):
    """What is decided about a point.

    Attributes:
        score: of the detector.
        p_value: share of the held-out normal points with a score as high, itself counted.
        threshold: above which a score raises an alarm, at this point.
        alarm: whether there is one.
    """

    score: float
    p_value: float
    threshold: float
    alarm: bool


def conformal_threshold(scores: Scores, budget: float) -> float:
    """The score that a normal point exceeds with probability at most `budget`.

    The ceil((n + 1)(1 - budget))-th smallest of n exchangeable scores (Vovk et al. 2005); where n
    is too small for the budget, the largest score: then the probability is at most 1 / (n + 1).
    """
    rank = math.ceil((len(scores) + 1) * (1 - budget))
    return float(np.sort(scores)[min(rank, len(scores)) - 1])


def fit_tail(excesses: Scores) -> tuple[float, float]:
    """Generalised Pareto shape ξ ≥ 0 and scale σ of positive excesses, by maximum likelihood.

    Grimshaw 1993: the likelihood is that of one number θ = ξ / σ. It is searched on grids, each
    around the best of the one before. A tail with an end (ξ < 0) is not believed: with few
    excesses it is fitted too often, and alarms come too often then.
    """
    mean = float(excesses.mean())
    low, high = 1e-4 / mean, 1e2 / mean
    for _ in range(_ZOOMS):
        grid = np.geomspace(low, high, _GRID)
        shapes = np.log1p(grid[:, None] * excesses).mean(axis=1)
        losses = np.log(shapes / grid) + shapes + 1
        place = int(losses.argmin())
        low, high = grid[max(place - 1, 0)], grid[min(place + 1, _GRID - 1)]
    if losses[place] < math.log(mean) + 1:
        return float(shapes[place]), float(shapes[place] / grid[place])
    return 0.0, mean


def honest_budget(shape: float, scale: float, count: int, share: float, budget: float) -> float:
    """The budget to ask of the fitted tail, so that on average `budget` comes out.

    The quantile of a tail that was fitted to few excesses is exceeded more often than asked. How
    much is found by drawing such excesses from the fitted tail and fitting those (seeded).

    Args:
        shape, scale: of the fitted tail.
        count: excesses that it was fitted to.
        share: of the points, that exceed the level.
        budget: share of the points that may exceed the threshold.
    """
    draws = np.random.default_rng(0).random((_DRAWS, count))
    asked = budget * np.geomspace(1e-3, 1, 31)
    rates = np.zeros(len(asked))
    for drawn in draws:
        fitted = fit_tail(_quantile(drawn, shape, scale))
        rates += share * _survival(_quantile(asked / share, *fitted), shape, scale) / _DRAWS
    return float(np.interp(budget, rates, asked))


def _quantile(survival: Scores, shape: float, scale: float) -> Scores:
    """The excess that is exceeded with these probabilities."""
    if abs(shape) < 1e-9:
        return -scale * np.log(survival)
    return scale * (survival**-shape - 1) / shape


def _survival(excess: Scores, shape: float, scale: float) -> Scores:
    """The probability that these excesses are exceeded."""
    if abs(shape) < 1e-9:
        return np.exp(-excess / scale)
    return np.maximum(1 + shape * excess / scale, 0.0) ** (-1 / shape)


def tail_threshold(level: float, excesses: Scores, share: float, budget: float) -> float:
    """The score exceeded with probability `budget`; a `share` of the points exceeds `level`."""
    if not len(excesses):
        return level
    return max(level + float(_quantile(np.array(budget / share), *fit_tail(excesses))), level)


@dataclass(frozen=True)
class Decision:
    """How scores become alarms; stored with the model.

    Attributes:
        kind: conformal: a fixed quantile. spot: Siffer et al. 2017: the tail of the scores, which
            goes on learning from points that raise no alarm. dspot: the same of the scores less
            their mean over the last 100 points without alarm; unlike the paper's, the mean moves
            to a level that has raised 100 alarms in a row, which would never end otherwise.
        budget: share of normal points that may exceed the threshold.
        normal: float64 [n], sorted scores of the held-out normal points.
        recent: the last of them in the order of time, for dspot.
        release: an alarm ends below this share of the threshold ...
        hold: ... after so many points more.
    """

    kind: Kind
    budget: float
    normal: Scores
    recent: Scores
    release: float = 1.0
    hold: int = 0

    @classmethod
    def fit(
        cls, scores: Scores, kind: Kind, budget: float, release: float = 1.0, hold: int = 0
    ) -> Decision:
        """From the scores of held-out normal points, in the order of time.

        Raises DataError without scores, ConfigError for spot with too few for a tail.
        """
        if not len(scores):
            raise DataError(
                "no held-out normal point has a score, so there is no threshold",
                mend="a longer training part, a larger --data.val_share or a smaller window",
            )
        if kind != "conformal" and len(scores) < 2 * DRIFT:
            raise ConfigError(
                f"{len(scores)} held-out points are too few for the tail of a distribution",
                where="training.threshold",
                allowed=f"{2 * DRIFT} or more for {kind}",
                mend="--training.threshold conformal, or a larger --data.val_share",
            )
        if budget > LARGEST_BUDGET and kind != "conformal":
            raise ConfigError(
                f"a budget of {budget:g} is no tail",
                where="training.false_alarms",
                allowed=f"up to {LARGEST_BUDGET:g} for {kind}; conformal takes any",
            )
        return cls(kind, budget, np.sort(scores), scores[-(DRIFT + 2000) :].copy(), release, hold)

    def p_values(self, scores: Scores | float) -> Scores:
        """Conformal p-values, float64 of the same shape, in (0, 1]: uniform on normal points."""
        above = len(self.normal) - self.normal.searchsorted(scores)
        return (above + 1) / (len(self.normal) + 1)

    def decider(self) -> Decider:
        """Decides point by point."""
        return Decider(self)

    def state(self) -> dict[str, Any]:
        """Plain values and arrays."""
        return dict(vars(self))


class Decider:
    """Threshold, p-value and alarm of one score after another."""

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        self._drift: deque[float] = deque(maxlen=DRIFT)
        self._alarmed: list[float] = []  # the newest scores, all of them above the threshold
        self._alarm, self._quiet = False, 0
        if decision.kind == "conformal":
            self.threshold = conformal_threshold(decision.normal, decision.budget)
            return
        known = decision.normal
        if decision.kind == "dspot":
            means = np.convolve(decision.recent, np.ones(DRIFT) / DRIFT, "valid")[:-1]
            known = decision.recent[DRIFT:] - means
            self._drift.extend(decision.recent[-DRIFT:])
        self._level = float(np.quantile(known, TAIL))
        self._excesses = known[known > self._level] - self._level
        self._count, self._peaks = len(known), len(self._excesses)
        self._budget = decision.budget
        if self._peaks:
            tail = *fit_tail(self._excesses), self._peaks, self._peaks / self._count
            self._budget = honest_budget(*tail, decision.budget)
        self.threshold = self._from_tail()

    def _from_tail(self) -> float:
        share = self._peaks / self._count
        return tail_threshold(self._level, self._excesses, share, self._budget)

    def update(self, score: float) -> Verdict:
        """One score → what is decided. spot and dspot learn from it if it raises no alarm."""
        base = self._base()
        threshold = base + self.threshold
        above = score > threshold
        self._hysteresis(score, threshold, above)
        if self.decision.kind != "conformal" and not above:
            self._learn(score - base)
        if self.decision.kind == "dspot":
            self._follow(score, above)
        return Verdict(score, float(self.decision.p_values(score)), threshold, self._alarm)

    def undecided(self) -> Verdict:
        """The verdict on a point without a score yet: no alarm, and nothing is learned from it."""
        return Verdict(0.0, 1.0, self._base() + self.threshold, False)

    def _base(self) -> float:
        return sum(self._drift) / DRIFT if self._drift else 0.0

    def _follow(self, score: float, above: bool) -> None:
        if not above:
            self._alarmed.clear()
            self._drift.append(score)
            return
        self._alarmed.append(score)
        if len(self._alarmed) == DRIFT:
            self._drift.extend(self._alarmed)
            self._alarmed.clear()

    def _learn(self, score: float) -> None:
        self._count += 1
        if score > self._level:
            self._peaks += 1
            self._excesses = np.append(self._excesses, score - self._level)[-PEAKS:]
            self.threshold = self._from_tail()

    def _hysteresis(self, score: float, threshold: float, above: bool) -> None:
        """On above the threshold; off when it was below the release for more than `hold` points."""
        if above:
            self._alarm, self._quiet = True, 0
        elif self._alarm:
            self._quiet = self._quiet + 1 if score < self.decision.release * threshold else 0
            self._alarm = self._quiet <= self.decision.hold


def decide(decision: Decision, scores: Scores) -> tuple[Scores, NDArray[np.bool_]]:
    """Scores [T] → thresholds float64 [T] and alarms bool [T], as the decider gives them."""
    decider = decision.decider()
    verdicts = [decider.update(score) for score in scores.tolist()]
    thresholds = np.array([verdict.threshold for verdict in verdicts])
    return thresholds, np.array([verdict.alarm for verdict in verdicts], dtype=bool)
