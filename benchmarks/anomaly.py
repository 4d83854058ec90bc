"""The anomaly benchmark itself: what its runner costs, and what a choice on tuning series gains.

NAB's series are read from RENSHU_SHARED_DATA/nab (default: ../shared/data/nab); without them, and
with --quick, the rows about them come from the last full run.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

import _table
from renshu_tasks.anomaly.bench.choice import choose, read_scored
from renshu_tasks.anomaly.bench.command import DETECTORS
from renshu_tasks.anomaly.bench.log import Log
from renshu_tasks.anomaly.bench.pool import LocalPool
from renshu_tasks.anomaly.bench.runner import Settings, execute, plan
from renshu_tasks.anomaly.bench.sources import Source, embedded, folder
from renshu_tasks.anomaly.detectors import DETECTORS as ALL
from renshu_tasks.anomaly.detectors import NEURAL, TRIVIAL

NAB = Path(os.environ.get("RENSHU_SHARED_DATA", _table.ROOT.parent / "shared" / "data")) / "nab"
CLASSICAL = [name for name in ALL if name not in (*NEURAL, *TRIVIAL)]
CHOICE = "VUS-PR on NAB's evaluation series: combination chosen on NAB's tuning series, less"
WHOLE = "renshu bench anomaly without data: 26 series, 8 detectors"


def quiet(line: str) -> None:
    """Progress that nobody reads."""


def overhead() -> _table.Row:
    """Between one outcome and the next, with a durable row for each."""
    with tempfile.TemporaryDirectory() as place:
        log, stamps = Log(Path(place) / "jobs.sqlite"), []
        for outcome in LocalPool(workers=1).run(abs, range(1000)):
            log.add(str(outcome.job), {"value": outcome.result})
            stamps.append(time.perf_counter())
    steps = np.diff(stamps) * 1e3
    spread = f"99 % below {np.quantile(steps, 0.99):.2g}"
    return _table.Row("runner's overhead a job", "ms", float(np.mean(steps)), reach="<= 20",
        spread=spread)  # fmt: skip


def resume() -> _table.Row:
    """The same 10,000 jobs planned again when all are in the log and have scores."""
    sources = [Source(f"s{i}", "g", "file", "nowhere", "evaluation", str(i)) for i in range(1000)]
    with tempfile.TemporaryDirectory() as place:
        detectors = [*CLASSICAL, "usad"]
        settings = Settings(folder=Path(place), detectors=detectors, seeds=1)
        jobs = plan(sources, settings)
        log = Log(Path(place) / "jobs.sqlite")
        log.add_all((job.key, job.row()) for job in jobs)
        log.close()
        (Path(place) / "scores").mkdir()
        for job in jobs:  # only looked for, not read
            (Path(place) / "scores" / f"{job.key}.safetensors").touch()
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            rows = execute(plan(sources, settings), Path(place), LocalPool(2), quiet)
            seconds.append(time.perf_counter() - start)
    assert len(rows) == 10_000
    spread = f"best of 5, longest {max(seconds):.2g}"
    return _table.Row("10,000 finished jobs found again", "s", min(seconds), reach="< 2",
        spread=spread)  # fmt: skip


def whole() -> _table.Row:
    """The benchmark that users run first."""
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(folder=Path(place), detectors=DETECTORS)
        sources = [source for source in embedded() if source.part == "evaluation"]
        start = time.perf_counter()
        rows = execute(plan(sources, settings), settings.folder, LocalPool(2), quiet)
        seconds = time.perf_counter() - start
    lost = sum(row.get("reason") is not None for row in rows)
    return _table.Row(WHOLE, "s", seconds, reach="< 180", spread=f"{len(rows)} jobs, {lost} failed")


def choice() -> Iterable[_table.Row]:
    """What is chosen on tuning series alone, against every single detector, on the others."""
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(folder=Path(place), detectors=CLASSICAL, seeds=1)
        rows = execute(plan(folder(NAB), settings), settings.folder, LocalPool(2), quiet)
        parts = {
            part: read_scored(settings.folder, [row for row in rows if row["part"] == part])
            for part in ("tuning", "evaluation")
        }
    chosen = choose(parts["tuning"])
    values = np.array([series.value(chosen) for series in parts["evaluation"]])
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(values), size=(2000, len(values)))
    for name in CLASSICAL:
        gain = values - [series.single(name) for series in parts["evaluation"]]
        low, high = np.quantile(gain[drawn].mean(axis=1), [0.025, 0.975])
        own = f"{values.mean():.3f} on {len(values)} series: {chosen}"
        yield _table.Row(f"{CHOICE} {name}", "", float(gain.mean()), reach="> 0",
            spread=f"{low:.3f} to {high:.3f}" + f"; {own}" * (name == CLASSICAL[0]))  # fmt: skip


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows."""
    yield overhead()
    yield resume()
    if quick:
        yield _table.stored(__file__, WHOLE, "s", "< 180")
    else:
        yield whole()
    if not quick and NAB.is_dir():
        yield from choice()
        return
    for name in CLASSICAL:
        yield _table.stored(__file__, f"{CHOICE} {name}", "", "> 0")


if __name__ == "__main__":
    _table.main(__file__, measure)
