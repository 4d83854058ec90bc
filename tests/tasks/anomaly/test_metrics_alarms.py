"""Delay, false alarms, NAB's score, F1 values, and the window rule."""

from __future__ import annotations

import math

import numpy as np
import pytest

from renshu.errors import DataError
from renshu_tasks.anomaly.metrics.affiliation import affiliation
from renshu_tasks.anomaly.metrics.alarms import detection_delay, false_alarms_a_day, nab_score
from renshu_tasks.anomaly.metrics.points import oracle_point_f1, point_adjusted_f1, point_f1
from renshu_tasks.anomaly.metrics.window import metric_window


def flags(points: int, *events: tuple[int, int]) -> np.ndarray:
    found = np.zeros(points, dtype=bool)
    for first, last in events:
        found[first : last + 1] = True
    return found


def test_the_delay_is_that_of_the_first_alarm_in_each_event() -> None:
    # pains/anomaly.md row 30
    labels = flags(100, (10, 19), (40, 49), (70, 79))
    alarms = flags(100, (14, 15), (17, 18), (38, 41), (90, 90))
    assert detection_delay(labels, alarms) == (2.0, 2, 1)  # 4 and 0 points; one event is missed
    nothing = detection_delay(labels, flags(100))
    assert math.isnan(nothing.points)
    assert (nothing.found, nothing.missed) == (0, 3)


def test_false_alarms_are_stretches_that_touch_no_event_by_normal_time() -> None:
    labels = flags(1000, (100, 199))
    alarms = flags(1000, (50, 60), (70, 70), (95, 105), (500, 520))
    days = 900 * 60 / 86_400
    assert false_alarms_a_day(labels, alarms, seconds=60) == pytest.approx(3 / days)


def plain_nab(labels: list[bool], alarms: list[bool]) -> float:
    """NAB 1.1's sweep, point by point, and its normalisation (standard profile)."""

    def sigmoid(x: float) -> float:
        return -1.0 if x >= 3 else 2 / (1 + math.exp(5 * x)) - 1

    points = len(labels)
    probation = min(math.floor(0.15 * points), 750)
    starts = [i for i in range(points) if labels[i] and (i == 0 or not labels[i - 1])]
    ends = [i for i in range(points) if labels[i] and (i == points - 1 or not labels[i + 1])]
    parts: dict[object, float] = {k: -1.0 for k, end in enumerate(ends) if end >= probation}
    lost = 0.0
    for i in range(probation, points):
        if not alarms[i]:
            continue
        if labels[i]:
            k = next(k for k, end in enumerate(ends) if end >= i)
            width = ends[k] - starts[k] + 1
            earned = sigmoid(-(ends[k] - i + 1) / width) / sigmoid(-1.0)
            parts[k] = max(parts[k], earned)
        else:
            before = [k for k, end in enumerate(ends) if end < i]
            past = 3.0
            if before:
                k = before[-1]
                past = (i - ends[k]) / max(ends[k] - starts[k], 1)
            lost += 0.11 * sigmoid(past)
    perfect, null = float(len(parts)), -float(len(parts))
    return 100 * (sum(parts.values()) + lost - null) / (perfect - null)


def test_nabs_score_is_its_sweep() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        points = int(rng.integers(20, 400))
        labels = np.zeros(points, dtype=bool)
        for start in rng.integers(points // 6 + 1, points - 2, 3):
            labels[start : start + int(rng.integers(2, 30))] = True
        alarms = rng.random(points) < 0.1
        expected = plain_nab(labels.tolist(), alarms.tolist())
        assert nab_score(labels, alarms) == pytest.approx(expected, abs=1e-9)


def test_nabs_score_is_100_at_the_first_points_and_0_without_alarms() -> None:
    labels = flags(400, (100, 119), (300, 319))
    assert nab_score(labels, flags(400, (100, 100), (300, 300))) == pytest.approx(100)
    assert nab_score(labels, flags(400)) == 0
    assert nab_score(labels, flags(400, (60, 99))) < -50


def test_point_adjusted_f1_comes_with_a_warning_and_what_noise_gets() -> None:
    # pains/anomaly.md row 1
    labels = flags(20_000, (3000, 3499), (9000, 9599), (15_000, 15_399))
    with pytest.warns(UserWarning, match="random scores do well"):
        found = point_adjusted_f1(labels, np.random.default_rng(1).random(20_000))
    assert found.f1 > 0.5
    assert found.random_f1 > 0.5
    assert oracle_point_f1(labels, np.random.default_rng(1).random(20_000)).value < 0.15


def test_the_oracle_threshold_gives_the_oracle_f1() -> None:
    rng = np.random.default_rng(2)
    labels = rng.random(300) < 0.1
    scores = np.round(rng.random(300) + 0.4 * labels, 2)
    best = oracle_point_f1(labels, scores)
    every = [point_f1(labels, scores >= threshold).f1 for threshold in np.unique(scores)]
    assert best.value == pytest.approx(max(every), abs=1e-12)
    assert point_f1(labels, scores >= best.threshold).f1 == pytest.approx(best.value, abs=1e-12)


def test_affiliation_is_1_for_the_events_themselves_and_near_half_for_noise() -> None:
    labels = flags(2000, (500, 540), (1500, 1520))
    assert affiliation(labels, labels) == (1.0, 1.0, 1.0)
    assert affiliation(labels, np.random.default_rng(0).random(2000) < 0.1).precision < 0.6
    nothing = affiliation(labels, flags(2000))
    assert math.isnan(nothing.precision)
    assert (nothing.recall, nothing.f1) == (0.0, 0.0)


def test_alarms_without_any_event_have_no_figure() -> None:
    for figure in (affiliation, point_f1, detection_delay, nab_score):
        with pytest.raises(DataError, match="no anomaly in the labels"):
            figure(flags(10), flags(10, (2, 3)))


@pytest.mark.parametrize("period", [3, 4, 7, 10, 24, 33, 100, 168, 288, 300])
def test_a_planted_period_is_the_window_exactly(period: int) -> None:
    # pains/anomaly.md row 7
    rng = np.random.default_rng(period)
    shape = rng.standard_normal(period)
    for points in (4 * period + 300, 20_000):
        wave = shape[np.arange(points) % period] + 0.05 * rng.standard_normal(points)
        assert metric_window(wave) == (period, "period")


def test_several_channels_have_the_median_of_their_periods() -> None:
    place = np.arange(3000)
    waves = [np.sin(2 * np.pi * place / period) for period in (20, 30, 50)]
    noise = np.random.default_rng(0).standard_normal(3000)
    found = metric_window(np.column_stack([*waves, noise, np.ones(3000)]))
    assert found == (30, "period of 3 channels, median")


@pytest.mark.parametrize("values", [np.ones(1000), np.arange(1000.0), np.arange(5.0)])
def test_what_has_no_period_has_the_stated_window(values: np.ndarray) -> None:
    assert metric_window(values) == (125, "no period: 125")


def test_values_as_large_as_floats_get_have_a_window() -> None:
    wave = 1e308 * np.sin(2 * np.pi * np.arange(2000) / 25)
    assert metric_window(wave).points == 25
    with pytest.raises(DataError, match="not finite"):
        metric_window([1.0, float("nan")])
