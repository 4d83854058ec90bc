"""Real anomaly-free series with events of six kinds put in by a seeded generator.

The normal data: walking, recorded by acceleration sensors at 64 Hz (Daphnet, Bächlin et al. 2010;
the file that aeon ships has no labelled anomaly), and the normal beats of a pig's blood pressure
(no. 135 of the UCR archive). What is planted is known exactly, and that it is planted is said in
every row: events that a generator makes are easier than most real ones.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from renshu_tasks.anomaly.demo import load_demo
from renshu_tasks.anomaly.metrics.events import Scores
from renshu_tasks.anomaly.series import Series
from renshu_tasks.common.packaged import checked, packaged

DAPHNET = "datasets/data/Daphnet_S06R02E0/S06R02E0.csv"
DAPHNET_SHA256 = "5a1d2990fec3846c3e1bc43487f0860e63434bd06b3df763012e97ce23d0d84c"

EVALUATION = ("ankle_vert", "trunk_vert", "blood_pressure")
TUNING = ("leg_vert", "leg_horiz_fwd")
"""Tuning has a sensor of its own, the leg's with both its axes; all are worn by one person."""

POINTS, EVENTS, LENGTH = 5000, 3, (20, 80)
TRAIN_END = 2000

Change = Callable[[Scores, Scores, np.random.Generator], Scores]


def _spike(segment: Scores, whole: Scores, rng: np.random.Generator) -> Scores:
    """One point, 4 to 6 deviations away, on either side."""
    changed = segment.copy()
    changed[len(segment) // 2] += rng.choice([-1, 1]) * rng.uniform(4, 6) * whole.std()
    return changed


def _level(segment: Scores, whole: Scores, rng: np.random.Generator) -> Scores:
    """A shift of 1 to 2 deviations."""
    return segment + rng.choice([-1, 1]) * rng.uniform(1, 2) * whole.std()


def _scale(segment: Scores, whole: Scores, rng: np.random.Generator) -> Scores:
    """Swings of 2 to 3 times their size."""
    return segment.mean() + rng.uniform(2, 3) * (segment - segment.mean())


def _noise(segment: Scores, whole: Scores, rng: np.random.Generator) -> Scores:
    """Added white noise of 0.5 to 1 deviation."""
    return segment + rng.normal(0, rng.uniform(0.5, 1) * whole.std(), len(segment))


def _flat(segment: Scores, whole: Scores, rng: np.random.Generator) -> Scores:
    """The sensor repeats its last value."""
    return np.full(len(segment), segment[0])


def _mirror(segment: Scores, whole: Scores, rng: np.random.Generator) -> Scores:
    """The stretch runs backwards and upside down: every value is a usual one."""
    return 2 * segment.mean() - segment[::-1]


KINDS: dict[str, Change] = {
    "spike": _spike,
    "level": _level,
    "scale": _scale,
    "noise": _noise,
    "flat": _flat,
    "mirror": _mirror,
}


def plant(base: str, kind: str, seed: int = 0) -> Series:
    """The series `base` with three events of a kind behind its training part.

    Args:
        base: a name of EVALUATION or TUNING.
        kind: a name of KINDS.
        seed: of places, lengths and sizes.

    Raises DataError where the package with the normal data is not installed or has another file.
    """
    normal = _normal(base)
    values, labels = normal.copy(), np.zeros(len(normal), dtype=np.uint8)
    name = f"{base}_{kind}" + (f"_{seed}" if seed else "")
    rng = np.random.default_rng([seed, *hashlib.sha256(f"{base}/{kind}".encode()).digest()[:8]])
    # One event in each third of what is scored: none at the very end, none touches another.
    edges = np.linspace(TRAIN_END + 200, len(normal) - 200, EVENTS + 1).astype(int)
    for low, high in pairwise(edges.tolist()):
        length = int(rng.integers(*LENGTH))
        start = int(rng.integers(low, high - length))
        change = KINDS[kind](normal[start : start + length], normal, rng)
        values[start : start + length] = change
        changed = np.flatnonzero(values[start : start + length] != normal[start : start + length])
        labels[start + changed[0] : start + changed[-1] + 1] = 1
    source = f"{base}: {kind} planted, seed {seed}"
    return Series(name, values[:, None], labels, TRAIN_END, origin="planted", source=source)


def _normal(base: str) -> Scores:
    """float64 [POINTS] without any known anomaly."""
    if base == "blood_pressure":
        series = load_demo("internal_bleeding")
        first = series.events[0][0]
        return series.values[: first - 100, 0]
    rows = list(csv.DictReader(_daphnet().read_text("utf-8").splitlines()))
    return np.array([float(row[base]) for row in rows])[1000 : 1000 + POINTS]


def _daphnet() -> Path:
    file = packaged(
        "aeon",
        DAPHNET,
        "the normal series for planted events come with aeon, which is not installed",
        'pip install "renshu[demo]", or give series of your own with --data',
    )
    said = "the Daphnet series is not the file that was checked"
    return checked(file, DAPHNET_SHA256, said, "pip install --force-reinstall aeon")
