"""The combination: it is chosen on what it is given, and is the mean of scores on one scale."""

from __future__ import annotations

import numpy as np
import pytest

from renshu.errors import DataError
from renshu_tasks.anomaly.bench.choice import SCALES, Combination, Scored, choose
from renshu_tasks.anomaly.metrics.volume import vus


def scored(seed: int, **strength: float) -> Scored:
    """A series on which each detector sees the events with its own strength, noise and scale."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(400, dtype=bool)
    labels[100:120] = labels[300:310] = True
    sizes = 10.0 ** rng.integers(-3, 4, len(strength))
    scores = {
        name: size * (rng.random(400) + power * labels)
        for size, (name, power) in zip(sizes, strength.items(), strict=True)
    }
    return Scored(f"s{seed}", labels, 10, "exact", scores)


def test_scales_forget_the_size_and_keep_the_order() -> None:
    scores = np.array([5.0, 1.0, 5.0, 9.0])
    assert SCALES["ranks"](scores).tolist() == [2.5 / 4, 1 / 4, 2.5 / 4, 1.0]
    for scale in SCALES.values():
        found = scale(1000 * scores)
        np.testing.assert_allclose(found, scale(scores))
        assert found[3] > found[0] == found[2] > found[1]
        assert np.isfinite(scale(np.full(4, 7.0))).all()


def test_the_value_of_one_detector_is_its_vus() -> None:
    series = scored(0, a=0.5)
    expected = vus(series.labels, series.scores["a"], 10).pr
    assert series.single("a") == expected and series.single("failed") == 0.0
    for scale in SCALES:
        assert series.value(Combination(("a",), scale, 0)) == pytest.approx(expected)
        assert series.value(Combination(("failed",), scale, 0)) == 0.0


def test_a_combination_is_the_smoothed_mean() -> None:
    series = scored(1, a=0.5, b=0.5)
    known = [SCALES["deviations"](series.scores[name]) for name in "aab"]
    mean = np.convolve(np.pad(np.mean(known, axis=0), 2, mode="edge"), np.ones(5) / 5, "valid")
    found = series.value(Combination(("a", "a", "b"), "deviations", 0.5))
    assert found == pytest.approx(vus(series.labels, mean, 10).pr)


def test_two_detectors_of_independent_noise_are_combined_and_noise_is_not() -> None:
    tuning = [scored(seed, a=0.6, b=0.6, noise=0.0) for seed in range(4)]
    chosen = choose(tuning)
    counts = {name: chosen.detectors.count(name) for name in ("a", "b", "noise")}
    assert min(counts["a"], counts["b"]) > 2 * counts["noise"]
    assert choose(tuning) == chosen
    others = [scored(seed, a=0.6, b=0.6, noise=0.0) for seed in range(100, 110)]
    gain = np.mean([s.value(chosen) - max(s.single("a"), s.single("b")) for s in others])
    assert gain > 0


def test_without_tuning_series_nothing_is_chosen() -> None:
    with pytest.raises(DataError, match="no tuning series"):
        choose([])
