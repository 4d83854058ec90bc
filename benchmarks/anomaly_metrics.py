"""The metrics of anomaly detection: their time beside the packages that they equal.

One thread, best of the repeats on both sides. Named modes beside TSB-AD 1.5 (its default `opt`),
affiliation beside its authors' package as vus 0.0.6 ships it; both run in an environment of their
own, whose Python RENSHU_PEERS names (tests/tasks/anomaly/reference/expected.py says how to make
it). Without it the rows that need a peer come from the last full run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any

import _table
from renshu_tasks.anomaly.metrics.affiliation import affiliation
from renshu_tasks.anomaly.metrics.ranges import range_f1
from renshu_tasks.anomaly.metrics.volume import vus

sys.path.insert(0, str(_table.ROOT / "tests" / "tasks" / "anomaly" / "reference"))
from _anomaly_peers import alarms, series, timed

FIRST = """
import time
start = time.perf_counter()
import numpy as np
from renshu_tasks.anomaly.metrics.volume import vus
labels = np.zeros(10_000, dtype=int)
labels[500:550] = 1
vus(labels, np.random.default_rng(0).random(10_000), 100)
print(time.perf_counter() - start)
"""

PEERS = {
    "vus 10000": ("VUS-PR and VUS-ROC, 10,000 points, 5 events, window 100, 250 thresholds", 100),
    "vus 100000": (
        "VUS-PR and VUS-ROC, 100,000 points, 10 events, window 100, 250 thresholds",
        100,
    ),
    "affiliation": ("affiliation, 50,000 points, 10 events, 2 % alarms", 20),
    "range f1": ("range F1, 50,000 points, 10 events, 2 % alarms", 20),
}


def peers(repeats: int) -> dict[str, Any] | None:
    """What the other packages need, from their own environment; None without one."""
    python = os.environ.get("RENSHU_PEERS")
    if python is None:
        return None
    command = [python, str(_table.ROOT / "benchmarks" / "_anomaly_peers.py"), str(repeats)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)


def ours(name: str) -> dict[str, Any]:
    """Our value and times of what a peer was asked."""
    kind, _, points = name.partition(" ")
    labels, scores = (
        series(int(points), 5 if points == "10000" else 10)
        if kind == "vus"
        else (series(50_000, 10))
    )
    raised = alarms(labels, scores)
    functions = {
        "vus": lambda: vus(labels, scores, 100, "tsb_ad"),
        "affiliation": lambda: affiliation(labels, raised).precision,
        "range": lambda: range_f1(labels, raised).f1,
    }
    functions[kind]()  # warm
    return timed(functions[kind], 20)


def against_peers(quick: bool) -> Iterable[_table.Row]:
    """How many times faster, and how far the values are apart."""
    theirs = peers(1 if quick else 3)
    for name, (what, reach) in PEERS.items():
        faster, apart = f"{what}: times faster", f"{what}: difference of the values"
        if theirs is None:
            yield _table.stored(__file__, faster, "×", f">= {reach}")
            yield _table.stored(__file__, apart, "", "<= 1e-9")
            continue
        mine, other = ours(name), theirs[name]
        seconds = min(mine["seconds"]), min(other["seconds"])
        peer = "vus 0.0.6" if name == "affiliation" else "TSB-AD 1.5"
        spread = f"{seconds[0] * 1e3:.3g} ms, {peer} {seconds[1] * 1e3:,.0f} ms"
        yield _table.Row(faster, "×", seconds[1] / seconds[0], reach=f">= {reach}", spread=spread)
        pairs = zip(_listed(mine["value"]), _listed(other["value"])[:: _order(name)], strict=True)
        yield _table.Row(apart, "", max(abs(a - b) for a, b in pairs), reach="<= 1e-9")


def _listed(value: Any) -> list[float]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _order(name: str) -> int:
    return -1 if name.startswith("vus") else 1  # TSB-AD gives ROC first


def exact(quick: bool) -> Iterable[_table.Row]:
    """All thresholds: no peer has it."""
    times = {}
    for points, events in ((100_000, 20), (1_000_000, 200)):
        labels, scores = series(points, events)
        times[points] = min(timed(lambda y=labels, s=scores: vus(y, s, 100), 3)["seconds"])
        yield _table.Row(
            f"VUS exact, all thresholds, {points:,} points, {events} events, window 100",
            "s",
            times[points],
            reach="<= 1" if points == 1_000_000 else "",
        )
    yield _table.Row(
        "VUS exact: time of ten times the points and events, n log n is 12",
        "×",
        times[1_000_000] / times[100_000],
        reach="<= 15",
    )


def first_call() -> _table.Row:
    """A new process: import and the first VUS. Nothing is compiled."""
    start = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-c", FIRST], capture_output=True, text=True, check=True
    )
    whole = time.perf_counter() - start
    spread = f"{whole:.2f} with Python's start"
    return _table.Row("first call, imports included", "s", float(answer.stdout), reach="<= 3",
        spread=spread)  # fmt: skip


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows."""
    yield from against_peers(quick)
    yield from exact(quick)
    yield first_call()


if __name__ == "__main__":
    _table.main(__file__, measure)
