"""The cases on which metrics are compared with other packages: random and adversarial, seeded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass
class Case:
    """Labels 0/1 int [n], scores float64 [n], alarms 0/1 int [n], window in points."""

    name: str
    labels: np.ndarray
    scores: np.ndarray
    alarms: np.ndarray
    window: int


def cases() -> list[Case]:
    return [*_random(), *_adversarial()]


def digest() -> str:
    """SHA-256 of all cases: that the expected values belong to them."""
    total = hashlib.sha256()
    for case in cases():
        total.update(f"{case.name} {case.window}".encode())
        for array in (case.labels, case.scores, case.alarms):
            total.update(array.tobytes())
    return total.hexdigest()


def _events(n: int, events: list[tuple[int, int]]) -> np.ndarray:
    labels = np.zeros(n, dtype=np.int64)
    for first, last in events:
        labels[first : last + 1] = 1
    return labels


def _case(name: str, labels: np.ndarray, scores: np.ndarray, window: int) -> Case:
    scores = np.asarray(scores, dtype=np.float64)
    alarms = (scores > np.quantile(scores, 0.9)).astype(np.int64)
    if not alarms.any():
        alarms[len(alarms) // 2] = 1
    return Case(name, labels, scores, alarms, window)


def _random() -> Iterator[Case]:
    rng = np.random.default_rng(12)
    kinds = ("uniform", "signal", "rounded", "late", "rare")
    for number in range(45):
        n = int(rng.integers(30, 900))
        labels = np.zeros(n, dtype=np.int64)
        for _ in range(int(rng.integers(1, 8))):
            start = int(rng.integers(0, n - 2))
            labels[start : start + int(rng.integers(1, max(2, n // 12)))] = 1
        kind = kinds[number % len(kinds)]
        scores = rng.random(n)
        if kind == "signal":
            scores += labels * rng.random(n)
        if kind == "rounded":
            scores = np.round(scores + 0.3 * labels, 1)
        if kind == "late":
            scores += np.roll(labels, int(rng.integers(1, 6)))
        if kind == "rare":
            scores = np.where(rng.random(n) < 0.05, scores, 0)
        yield _case(f"{kind} {number}", labels, scores, int(rng.integers(0, 60)))


def _adversarial() -> Iterator[Case]:
    rng = np.random.default_rng(13)
    n = 300
    two = _events(n, [(100, 120), (200, 204)])
    noise = rng.random(n)
    yield _case("perfect", two, two + noise / 2, 40)
    yield _case("inverted", two, noise / 2 - two, 40)
    yield _case("constant", two, np.full(n, 0.25), 20)
    yield _case("two values", two, two.astype(float), 30)
    yield _case("event at the start", _events(n, [(0, 10), (150, 155)]), noise, 30)
    yield _case("event at the end", _events(n, [(40, 50), (280, 299)]), noise, 30)
    yield _case("events at both ends", _events(n, [(0, 3), (296, 299)]), noise, 50)
    yield _case("single points", _events(n, [(50, 50), (90, 90), (200, 200)]), noise, 16)
    yield _case("one normal point between", _events(n, [(60, 70), (72, 80)]), noise, 10)
    yield _case("alternating", _events(60, [(i, i) for i in range(10, 50, 2)]), noise[:60], 12)
    for gap in range(3, 9):  # buffers of 3 points: overlapping, meeting, a point between, apart
        events = [(100, 105), (105 + gap, 112 + gap), (200, 201)]
        yield _case(f"gap {gap}", _events(n, events), noise + rng.random(n), 6)
    yield _case("window 0", two, noise + two / 3, 0)
    yield _case("window 1", two, noise + two / 3, 1)
    yield _case("window longer than the series", _events(40, [(20, 22)]), noise[:40], 90)
    yield _case("most points anomalous", 1 - _events(n, [(30, 33), (200, 240)]), noise, 20)
    yield _case("huge scores", two, noise * 1e300, 20)
    yield _case("negative scores", two, noise - 5, 20)
    yield _case("tiny differences", two, 1 + noise * 1e-13, 20)
    yield _case("four points", np.array([0, 1, 0, 0]), np.array([0.1, 0.4, 0.3, 0.2]), 4)
    long = _events(4000, [(500, 560), (1500, 1510), (1530, 1600), (3990, 3999)])
    smooth = np.convolve(rng.random(4000) + 0.4 * long, np.ones(9) / 9, "same")
    yield _case("long and smooth", long, smooth, 100)
