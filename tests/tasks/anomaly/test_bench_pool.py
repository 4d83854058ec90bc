"""The pool: every job has an outcome, whatever it does; failures have their reason."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from renshu.errors import RunError
from renshu_tasks.anomaly.bench.jobs import failed
from renshu_tasks.anomaly.bench.log import Log, locked
from renshu_tasks.anomaly.bench.pool import LocalPool
from renshu_tasks.anomaly.bench.runner import Settings, execute, plan
from renshu_tasks.anomaly.bench.sources import Source


def test_results_are_those_of_the_function() -> None:
    outcomes = list(LocalPool(workers=2).run(abs, range(-20, 0)))
    assert sorted(outcome.result for outcome in outcomes) == list(range(1, 21))
    assert all(outcome.result == -outcome.job for outcome in outcomes)


def test_a_job_that_raises_has_its_reason_and_the_others_go_on() -> None:
    outcomes = {o.job: o for o in LocalPool(workers=2).run(int, ["1", "x", "3"])}
    assert outcomes["1"].result == 1
    assert outcomes["3"].result == 3
    assert outcomes["x"].reason == "ValueError: invalid literal for int() with base 10: 'x'"


def test_a_job_that_hangs_is_ended_and_its_process_replaced() -> None:
    start = time.monotonic()
    outcomes = {o.job: o for o in LocalPool(workers=1, seconds=1).run(time.sleep, [300, 0, 0.1])}
    assert outcomes[300].reason == "took longer than 1 s: ended"
    assert outcomes[0].reason is None
    assert outcomes[0.1].reason is None
    assert time.monotonic() - start < 60


def test_a_process_that_dies_is_told_and_replaced() -> None:
    outcomes = {o.job: o for o in LocalPool(workers=1).run(os._exit, [3])}
    assert outcomes[3].reason == "its process died (exit code 3)"
    killed = list(LocalPool(workers=1).run(signal.raise_signal, [signal.SIGKILL]))
    assert killed[0].reason == "its process died (SIGKILL)"


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="no limit of address space")
def test_a_job_that_needs_too_much_memory_is_told() -> None:
    pool = LocalPool(workers=1, megabytes=200)
    outcomes = {o.job: o for o in pool.run(bytes, [10 * 2**20, 10 * 2**30])}
    assert outcomes[10 * 2**30].reason == "needed more than 200 MB of memory"
    assert len(outcomes[10 * 2**20].result) == 10 * 2**20


def test_a_job_costs_less_than_20_ms_above_its_own_time() -> None:
    stamps = [time.perf_counter() for _ in LocalPool(workers=1).run(abs, range(200))]
    assert (stamps[-1] - stamps[0]) / 199 < 0.020


def test_rows_are_durable_and_a_second_run_is_kept_out(tmp_path: Path) -> None:
    log = Log(tmp_path / "jobs.sqlite")
    log.add("b", {"series": "s", "detector": "d", "seed": 1, "value": None})
    log.add("a", {"series": "s", "detector": "d", "seed": 0, "value": 0.5})
    other = Log(tmp_path / "jobs.sqlite")
    assert [row["seed"] for row in other.rows()] == [0, 1]
    with locked(tmp_path), pytest.raises(RunError, match="another benchmark"), locked(tmp_path):
        pass


def test_10_000_finished_jobs_are_found_again_in_under_2_seconds(tmp_path: Path) -> None:
    sources = [Source(f"s{i}", "g", "file", "nowhere", "evaluation", str(i)) for i in range(5000)]
    settings = Settings(folder=tmp_path, detectors=["difference", "constant"])
    log = Log(tmp_path / "jobs.sqlite")
    jobs = plan(sources, settings)
    log.add_all((job.key, failed(job, "no labels") | {"unusable": True}) for job in jobs)
    log.close()
    start = time.process_time()
    rows = execute(plan(sources, settings), tmp_path, LocalPool(workers=1), print)
    assert time.process_time() - start < 2
    assert len(rows) == 10_000
    assert {row["reason"] for row in rows} == {"no labels"}
