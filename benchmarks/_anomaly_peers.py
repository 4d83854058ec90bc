"""The peers' side of anomaly_metrics.py, run by a Python that has them; prints JSON.

They cannot be installed beside numpy 2: tests/tasks/anomaly/reference/expected.py says how to make
their environment. RENSHU_PEERS names its Python.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "tasks" / "anomaly" / "reference"))
from expected import load  # noqa: E402


def series(points: int, events: int, length: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0/1 and scores of a series: events at equal distances, noisy scores."""
    rng = np.random.default_rng(points)
    labels = np.zeros(points, dtype=np.int64)
    for start in np.linspace(points // 20, points - points // 20, events).astype(int):
        labels[start : start + length] = 1
    return labels, rng.random(points) + 0.5 * labels * rng.random(points)


def alarms(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The two highest percent of the scores, 0/1."""
    return (scores > np.quantile(scores, 0.98)).astype(np.int64)


def timed(function: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Its value and the seconds of each call."""
    seconds, value = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        value = function()
        seconds.append(time.perf_counter() - start)
    return {"value": value, "seconds": seconds}


def measure(repeats: int) -> dict[str, Any]:
    peers = load()
    tsb = peers["tsb"]
    found = {}
    for points, events in ((10_000, 5), (100_000, 10)):
        labels, scores = series(points, events)
        curve = timed(lambda s=scores, y=labels: tsb.generate_curve(y, s, 100)[-2:], repeats)
        found[f"vus {points}"] = curve | {"value": [float(one) for one in curve["value"]]}
    labels, scores = series(50_000, 10)
    raised = alarms(labels, scores)
    events, near = peers["generics"].convert_vector_to_events, peers["affiliation"].pr_from_events
    found["affiliation"] = timed(
        lambda: near(events(raised), events(labels), (0, len(labels)))["Affiliation_Precision"],
        repeats,
    )
    grader = tsb.basic_metricor()
    found["range f1"] = timed(lambda: grader.metric_RF1(labels, scores, raised), repeats)
    return found


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
