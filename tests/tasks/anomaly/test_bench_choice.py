"""The combination: it is chosen on what it is given, and is the mean of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from renshu.errors import DataError
from renshu_tasks.anomaly.bench.choice import Ranked, _ranks, choose
from renshu_tasks.anomaly.metrics.volume import vus


def ranked(seed: int, **strength: float) -> Ranked:
    """A series on which each detector sees the events with its own strength and noise."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(400, dtype=bool)
    labels[100:120] = labels[300:310] = True
    scores = {name: rng.random(400) + power * labels for name, power in strength.items()}
    return Ranked(f"s{seed}", labels, 10, "exact", {n: _ranks(s) for n, s in scores.items()})


def test_ranks_share_ties_and_keep_the_order() -> None:
    assert _ranks(np.array([5.0, 1.0, 5.0, 9.0])).tolist() == [2.5 / 4, 1 / 4, 2.5 / 4, 1.0]


def test_the_value_of_one_detector_is_its_vus() -> None:
    series = ranked(0, a=0.5)
    assert series.value(["a"]) == vus(series.labels, series.ranks["a"], 10).pr
    assert series.value(["failed"]) == 0.0


def test_two_detectors_of_independent_noise_are_combined_and_noise_is_not() -> None:
    tuning = [ranked(seed, a=0.6, b=0.6, noise=0.0) for seed in range(8)]
    chosen = choose(tuning)
    assert set(chosen) == {"a", "b"}
    others = [ranked(seed, a=0.6, b=0.6, noise=0.0) for seed in range(100, 120)]
    gain = np.mean([s.value(chosen) - max(s.value(["a"]), s.value(["b"])) for s in others])
    assert gain > 0


def test_without_tuning_series_nothing_is_chosen() -> None:
    with pytest.raises(DataError, match="no tuning series"):
        choose([])
