"""Standings, ranks and planted series: numbers from theory or print."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from renshu_tasks.anomaly.bench import planted
from renshu_tasks.anomaly.bench.jobs import _scores
from renshu_tasks.anomaly.bench.table import by_group, matrix, standings
from renshu_tasks.anomaly.detector import Detector
from renshu_tasks.anomaly.detectors import make
from renshu_tasks.anomaly.series import Series


def row(series: str, detector: str, value: float | None, **more: object) -> dict[str, object]:
    base = {"seed": 0, "mode": "exact", "group": "g", "seconds": 1.0, "vus_pr": value}
    base |= {"reason": None, "unusable": False}
    return {"series": series, "detector": detector} | base | more


@pytest.mark.parametrize(
    ("count", "quantile"), [(3, 2.343), (4, 2.569), (5, 2.728), (8, 3.031), (10, 3.164)]
)
def test_the_critical_difference_has_the_quantiles_of_demsars_table(
    count: int, quantile: float
) -> None:
    """Demšar 2006, table 5, α = 0.05; 4 detectors on 14 sets differ from 1.25 on."""
    pytest.importorskip("scipy")
    from renshu_tasks.anomaly.bench.ranks import mean_ranks

    values = np.random.default_rng(0).random((14, count))
    found = mean_ranks([str(i) for i in range(count)], values)
    factor = np.sqrt(count * (count + 1) / (6 * 14))
    assert found.critical == pytest.approx(quantile * factor, abs=1e-3)


def test_tied_detectors_share_their_rank_and_a_bar_joins_what_is_near() -> None:
    pytest.importorskip("scipy")
    from renshu_tasks.anomaly.bench.ranks import mean_ranks

    rows = [[0.9, 0.5, 0.5, 0.1], [0.9, 0.6, 0.4, 0.1]] * 10
    found = mean_ranks(["a", "b", "c", "d"], np.array(rows))
    assert list(found.names) == ["a", "b", "c", "d"]
    assert list(found.means) == [1.0, 2.25, 2.75, 4.0]
    assert found.critical == pytest.approx(1.0488, abs=1e-3)
    assert found.groups == [(1, 2)]
    assert found.p_value < 1e-6


def test_detectors_that_always_order_alike_are_told_apart() -> None:
    pytest.importorskip("scipy")
    from renshu_tasks.anomaly.bench.ranks import mean_ranks

    found = mean_ranks(["a", "b", "c"], np.tile([0.1, 0.2, 0.9], (40, 1)))
    assert list(found.names) == ["c", "b", "a"]
    assert found.groups == []


def test_the_interval_over_series_covers_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for number in range(100):
        drawn = rng.beta(2, 2, size=30)
        rows = [row(f"s{i}", "d", float(value)) for i, value in enumerate(drawn)]
        one = standings(rows, seed=number)[0]
        inside += one.low <= 0.5 <= one.high
    assert 88 <= inside <= 99


def test_seeds_are_averaged_within_a_series_before_series_are() -> None:
    rows = [row("a", "d", 0.0), row("a", "d", 1.0, seed=1), row("b", "d", 0.2)]
    assert matrix(rows, "vus_pr")[2].tolist() == [[0.5], [0.2]]
    one = standings(rows)[0]
    assert one.value == pytest.approx(0.35)
    assert one.seeds == pytest.approx(np.std([0, 1], ddof=1))


def test_a_series_that_a_detector_has_no_job_on_counts_as_0() -> None:
    rows = [row("easy", "d", 0.8), row("easy", "e", 0.8), row("hard", "e", 0.4)]
    assert {one.detector: one.value for one in standings(rows)} == pytest.approx(
        {"d": 0.4, "e": 0.6}
    )


def test_groups_have_the_means_of_their_own_series() -> None:
    rows = [row("a", "d", 0.1), row("b", "d", 0.3), row("c", "d", 0.9, group="h")]
    names, _, means = by_group(rows)
    assert names == ["g", "h"]
    assert means[:, 0] == pytest.approx([0.2, 0.9])


@pytest.mark.parametrize("kind", planted.KINDS)
def test_planted_events_are_known_exactly(kind: str) -> None:
    if find_spec("aeon") is None:
        pytest.skip("aeon ships the normal series")
    series = planted.plant("leg_vert", kind)
    normal = planted._normal("leg_vert")
    differ = series.values[:, 0] != normal
    assert not differ[: series.train_end].any()
    assert (series.labels[differ] == 1).all()
    assert len(series.events) == planted.EVENTS
    for first, last in series.events:
        assert differ[first]
        assert differ[last]
        assert last < len(series) - 200
    again, other = planted.plant("leg_vert", kind), planted.plant("leg_vert", kind, seed=1)
    assert np.array_equal(series.values, again.values)
    assert series.events != other.events
    assert series.origin == "planted"


@pytest.mark.parametrize("name", ["difference", "zscore"])
def test_nothing_behind_the_training_part_reaches_fit_or_threshold(name: str) -> None:
    # pains/anomaly.md rows 2 and 12
    rng = np.random.default_rng(0)
    values = rng.standard_normal((1000, 1))
    series = Series("a", values, np.zeros(1000, dtype=np.uint8), train_end=600)
    other_values = values.copy()
    other_values[600:] = 1e6 * rng.standard_normal((400, 1))
    other = Series("b", other_values, np.ones(1000, dtype=np.uint8), train_end=600)
    thresholds, states = [], []
    for one in (series, other):
        detector: Detector = make(name)
        scores, threshold = _scores(detector, one, 0.01)
        assert scores.shape == (400,)
        thresholds.append(threshold)
        states.append({k: v.tolist() for k, v in detector.state().arrays.items()})
    assert thresholds[0] == thresholds[1]
    assert states[0] == states[1]


def test_without_a_training_part_there_is_no_threshold() -> None:
    values = np.random.default_rng(0).standard_normal((300, 1))
    series = Series("a", values, np.zeros(300, dtype=np.uint8))
    scores, threshold = _scores(make("difference"), series, 0.01)
    assert scores.shape == (300,)
    assert threshold is None
