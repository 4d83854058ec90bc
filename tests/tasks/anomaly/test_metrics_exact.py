"""The exact mode: equal to its formula written plainly, and what it promises."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.metrics.modes import MODES
from renshu_tasks.anomaly.metrics.volume import attainable, range_auc, vus


def plain(labels: list[int], scores: list[float], window: int) -> tuple[float, float]:
    """docs/metrics.md, "The exact mode", line by line."""
    points, half = range(len(labels)), window // 2
    truth = [i for i in points if labels[i]]
    distance = [min(abs(i - j) for j in truth) for i in points]
    weight = [(1 - d / window) ** 0.5 if 0 < d <= half else float(d == 0) for d in distance]
    starts = [i for i in truth if i == 0 or not labels[i - 1]]
    lasts = [i for i in truth if i == len(labels) - 1 or not labels[i + 1]]
    mass = (len(truth) + sum(weight)) / 2
    recall = false = pr = roc = 0.0
    for threshold in sorted(set(scores), reverse=True):
        alarms = [i for i in points if scores[i] >= threshold]
        true = sum(weight[i] for i in alarms)
        pairs = zip(starts, lasts, strict=True)
        found = sum(any(a - half <= i <= b + half for i in alarms) for a, b in pairs) / len(starts)
        last, recall = recall, min(true / mass, 1) * found
        before, false = false, (len(alarms) - true) / (len(labels) - mass)
        pr += (recall - last) * true / len(alarms)
        roc += (false - before) * (recall + last) / 2
    return pr, roc + (1 - false) * (1 + recall) / 2


def some(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels and scores, with ties or without, of up to 60 points."""
    while True:
        labels = (rng.random(int(rng.integers(2, 60))) < rng.choice([0.05, 0.2, 0.6])).astype(int)
        if labels.any() and not labels.all():
            return labels, np.round(rng.random(len(labels)), int(rng.integers(1, 9)))


def test_is_the_plain_formula() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        labels, scores = some(rng)
        for window in (0, 1, 2, int(rng.integers(3, 90))):
            expected = plain(labels.tolist(), scores.tolist(), window)
            found = range_auc(labels, scores, window)
            assert list(found) == pytest.approx(list(expected), rel=0, abs=1e-12)


def test_the_volume_is_the_mean_over_the_windows() -> None:
    labels, scores = some(np.random.default_rng(1))
    layers = [plain(labels.tolist(), scores.tolist(), window) for window in range(13)]
    assert list(vus(labels, scores, 12)) == pytest.approx(np.mean(layers, axis=0), abs=1e-12)


@pytest.mark.parametrize("points", [100, 100_000])
def test_perfect_separation_is_1_at_window_0_whatever_the_length(points: int) -> None:
    # pains/anomaly.md row 9
    labels = np.zeros(points, dtype=int)
    labels[20:70] = 1
    scores = np.random.default_rng(0).random(points) + labels
    assert range_auc(labels, scores, 0) == (1.0, 1.0)
    if points == 100_000:  # 250 thresholds miss 50 points in 100,000
        assert range_auc(labels, scores, 0, "tsb_ad").pr == pytest.approx(0.1419, abs=1e-4)
        assert range_auc(labels, scores, 0, "aeon").pr == pytest.approx(0.5709, abs=1e-4)


def test_a_rising_map_of_the_scores_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        labels, scores = some(rng)
        assert vus(labels, scores, 20) == vus(labels, np.exp(3 * scores) - 7, 20)


def test_no_order_of_the_points_is_above_the_attainable_maximum() -> None:
    for labels in product((0, 1), repeat=5):
        if 0 < sum(labels) < 3:
            figures = [vus(labels, order, 2) for order in permutations(range(5))]
            best = np.max(figures, axis=0)
            assert list(attainable(labels, 2)) == pytest.approx(list(best), abs=1e-12)


def test_the_attainable_maximum_is_1_at_windows_without_a_buffer() -> None:
    labels = [0, 0, 1, 1, 0, 0, 0, 1, 0, 0]
    assert attainable(labels, 1) == (1.0, 1.0)
    assert attainable(labels, 4).pr < 1


def test_a_window_says_nothing_without_its_mode() -> None:
    # pains/anomaly.md row 6: the figure grows or falls with the window, as the mode has it.
    rng = np.random.default_rng(5)
    labels = np.zeros(5000, dtype=int)
    for start in (500, 2000, 4000):
        labels[start : start + 40] = 1
    scores = np.convolve(rng.random(5000) + np.roll(labels, 20), np.ones(31) / 31, "same")
    figures = {mode: [vus(labels, scores, w, mode).pr for w in (50, 100, 200)] for mode in MODES}
    assert figures["tsb_ad"] == sorted(figures["tsb_ad"])
    assert len({round(values[2], 3) for values in figures.values()}) == len(MODES)


def test_what_has_no_figure_is_refused() -> None:
    # pains/anomaly.md rows 3 and 17
    good = [0, 1, 0, 0], [0.1, 0.9, 0.2, 0.3]
    wrong = {
        "all labels are 0": ([0, 0, 0, 0], good[1]),
        "all labels are 1": ([1, 1, 1, 1], good[1]),
        "nan": (good[0], [0.1, float("nan"), 0.2, 0.3]),
        "inf": (good[0], [0.1, float("inf"), 0.2, 0.3]),
        "scores for": (good[0], [0.1, 0.2]),
        "labels: ": ([0, 2, 0, 0], good[1]),
    }
    for said, (labels, scores) in wrong.items():
        for mode in MODES:
            with pytest.raises(DataError, match=said):
                vus(labels, scores, 4, mode)
    with pytest.raises(ConfigError, match="there is no mode 'tsbad'"):
        vus(*good, 4, "tsbad")
    for window in (-1, 2.5, True):
        with pytest.raises(ConfigError, match="whole number"):
            vus(*good, window)


def test_events_at_every_density_cost_no_more_than_the_points() -> None:
    # pains/anomaly.md row 21
    """Half of the points anomalous, single-point events: nothing is quadratic."""
    labels = np.arange(200_000) % 2
    pr, roc = vus(labels, np.random.default_rng(0).random(200_000), 4)
    assert 0.5 < pr < 1
    assert 0 < roc < 1
