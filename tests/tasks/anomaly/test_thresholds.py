"""Thresholds hold their false-alarm budget, p-values what they promise, alarms their hysteresis."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

pytest.importorskip("scipy", reason='needs pip install "renshu[anomaly]"')

from scipy import stats

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.thresholds import (
    Decision,
    conformal_threshold,
    decide,
    fit_tail,
    tail_threshold,
)


def test_the_conformal_threshold_is_an_order_statistic():
    scores = np.arange(1.0, 100.0)[np.random.default_rng(0).permutation(99)]
    assert conformal_threshold(scores, 0.05) == 95  # the 95th of 99: P(above) = 5 / 100
    assert conformal_threshold(scores, 0.5) == 50


def test_all_normal_calibration_gives_at_least_the_largest_score():  # pains/anomaly.md row 28
    scores = np.random.default_rng(0).random(50)
    assert conformal_threshold(scores, 1e-6) == scores.max()
    _, alarms = decide(Decision.fit(scores, "conformal", 1e-6), scores)
    assert not alarms.any()
    many = np.random.default_rng(1).random(3000)
    assert Decision.fit(many, "spot", 1e-4).decider().threshold >= np.quantile(many, 0.999)


# pains/anomaly.md row 13
@pytest.mark.parametrize(
    ("kind", "budget"),
    [("conformal", 0.01), pytest.param("spot", 0.001, marks=pytest.mark.slow)],
)
def test_two_hundred_noise_series_hold_the_budget(kind, budget):
    rates = []
    for seed in range(200):
        noise = np.abs(np.random.default_rng(seed).normal(size=1500))
        held, later = noise[:500], noise[500:]
        _, alarms = decide(Decision.fit(held, kind, budget), later)
        rates.append(alarms.mean())
    draws = np.random.default_rng(0).choice(rates, (2000, 200)).mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    assert low <= budget, (low, high)
    assert high >= 0.5 * budget, "so careful that nothing would be found"


@pytest.mark.parametrize("shape", [0.1, 0.3])
def test_the_tail_is_that_of_maximum_likelihood(shape):
    excesses = stats.genpareto.rvs(shape, scale=2.0, size=2000, random_state=1)
    found = fit_tail(excesses)
    reference = stats.genpareto.fit(excesses, floc=0)
    own = stats.genpareto.logpdf(excesses, found[0], scale=found[1]).sum()
    best = stats.genpareto.logpdf(excesses, reference[0], scale=reference[2]).sum()
    assert own >= best - 1e-3
    assert found[0] == pytest.approx(shape, abs=0.1) and found[1] == pytest.approx(2, rel=0.1)


def test_the_tails_quantile_is_that_of_the_distribution():
    scores = stats.expon.rvs(size=50_000, random_state=2)
    level = float(np.quantile(scores, 0.98))
    excesses = scores[scores > level] - level
    found = tail_threshold(level, excesses, 0.02, 1e-4)
    assert found == pytest.approx(-np.log(1e-4), rel=0.1)
    assert tail_threshold(3.0, np.empty(0), 0.02, 0.01) == 3.0


def test_a_tail_with_an_end_is_not_believed():
    assert fit_tail(stats.uniform.rvs(size=500, random_state=1))[0] == 0


def test_dspot_follows_a_drift_and_a_fixed_threshold_does_not():
    rng = np.random.default_rng(3)
    scores = np.abs(rng.normal(size=3000)) + np.r_[np.zeros(2000), np.linspace(0, 8, 1000)]
    alarms = {}
    for kind in ("conformal", "dspot"):
        decision = Decision.fit(scores[:2000], kind, 1e-3)
        alarms[kind] = decide(decision, scores[2000:])[1].mean()
    assert alarms["dspot"] < 0.01 < 0.5 < alarms["conformal"]


def test_dspot_takes_a_level_that_lasts_as_normal_and_an_event_not():
    noise = np.abs(np.random.default_rng(8).normal(size=4000))
    decision = Decision.fit(noise[:2000], "dspot", 1e-3)
    shifted = decide(decision, noise[2000:] + 10)[1]
    assert shifted[:100].all() and shifted[100:].mean() < 0.01
    event = noise[2000:] + 10 * (np.arange(2000) // 50 == 4)  # half as long as the mean's memory
    alarms = decide(decision, event)[1]
    assert alarms[200:250].all() and np.delete(alarms, range(200, 250)).mean() < 0.01


def test_spot_goes_on_learning_from_normal_points():
    rng = np.random.default_rng(4)
    decider = Decision.fit(np.abs(rng.normal(size=1000)), "spot", 1e-3).decider()
    start = decider.threshold
    for share in rng.uniform(0.9, 0.99, size=300):
        assert not decider.update(float(share * start)).alarm
    assert decider.threshold > 1.05 * start
    filled = decider.threshold
    for _ in range(50):
        assert decider.update(10 * filled).alarm  # an alarm teaches nothing
    assert decider.threshold == filled


def test_p_values_of_normal_points_are_uniform():  # pains/anomaly.md row 37
    rng = np.random.default_rng(5)
    decision = Decision.fit(rng.exponential(size=2000), "conformal", 0.01)
    assert stats.kstest(decision.p_values(rng.exponential(size=2000)), "uniform").pvalue > 0.01
    assert decision.p_values(np.array([np.inf]))[0] == pytest.approx(1 / 2001)
    assert decision.p_values(np.array([-1.0]))[0] == 1


def test_a_monotone_map_of_the_scores_changes_no_p_value_and_no_alarm():
    rng = np.random.default_rng(6)
    held, later = rng.exponential(size=500), rng.exponential(size=500) * 2
    one = Decision.fit(held, "conformal", 0.01)
    two = Decision.fit(np.expm1(held), "conformal", 0.01)
    np.testing.assert_array_equal(one.p_values(later), two.p_values(np.expm1(later)))
    np.testing.assert_array_equal(decide(one, later)[1], decide(two, np.expm1(later))[1])


@pytest.mark.parametrize(
    ("release", "hold", "expected"),
    [
        (1.0, 0, "0010001000011"),
        (0.5, 0, "0011001100011"),
        (1.0, 1, "0011001100011"),
        (0.5, 3, "0011111111111"),
    ],
)
def test_an_alarm_ends_below_the_release_and_after_the_hold(release, hold, expected):
    scores = np.array([0, 1, 9, 6, 1, 1, 9, 7, 2, 1, 1, 9, 8], dtype=float)
    decision = Decision("conformal", 0.1, np.full(50, 8.0), np.empty(0), release, hold)
    _, alarms = decide(decision, scores)
    assert "".join(str(int(alarm)) for alarm in alarms) == expected


def test_a_stream_of_verdicts_is_the_batch():
    rng = np.random.default_rng(7)
    held, later = rng.exponential(size=800), rng.exponential(size=300) * 2
    for kind in ("conformal", "spot", "dspot"):
        decision = Decision.fit(held, kind, 0.002, 0.8, 2)
        thresholds, alarms = decide(decision, later)
        decider = Decision(**decision.state()).decider()
        verdicts = [decider.update(score) for score in later.tolist()]
        assert [verdict.threshold for verdict in verdicts] == thresholds.tolist()
        assert [verdict.alarm for verdict in verdicts] == alarms.tolist()


def test_too_few_points_and_budgets_that_are_no_tail_are_refused():
    with pytest.raises(DataError, match="no held-out normal point"):
        Decision.fit(np.empty(0), "conformal", 0.01)
    with pytest.raises(ConfigError, match="too few for the tail"):
        Decision.fit(np.arange(150.0), "spot", 0.001)
    with pytest.raises(ConfigError, match="no tail"):
        Decision.fit(np.arange(1500.0), "spot", 0.1)


def test_nothing_here_takes_labels_or_test_data():  # pains/anomaly.md row 2
    for function in (Decision.fit, conformal_threshold, tail_threshold, fit_tail):
        names = set(inspect.signature(function).parameters)
        assert not {"labels", "label", "y", "test", "truth"} & names


def test_constant_scores_raise_no_alarm():
    for kind in ("conformal", "spot", "dspot"):
        _, alarms = decide(Decision.fit(np.full(500, 2.0), kind, 0.001), np.full(100, 2.0))
        assert not alarms.any()
