"""Plans the jobs, runs those that are not done, and gives the rows of all."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from renshu.errors import DataError
from renshu.loggers.files import write_atomically
from renshu_tasks.anomaly.bench.jobs import SCORES, Job, failed, measure, run_job, seeded
from renshu_tasks.anomaly.bench.log import Log, Row, locked
from renshu_tasks.anomaly.bench.pool import Pool
from renshu_tasks.anomaly.bench.sources import Source
from renshu_tasks.anomaly.bench.stored import read_scores, read_stored, score_keys

Tell = Callable[[str], None]

LOG, RUN = "jobs.sqlite", "run.json"

TASK = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What holds for every job of a benchmark.

    Attributes:
        folder: where logs, scores and the leaderboard are kept.
        detectors: names of detectors.DETECTORS.
        seeds: so many runs of detectors that draw random numbers.
        mode: of VUS: one for the whole table.
        budget: share of normal points that may be alarmed.
        retrain: points after which a detector is fitted again, see `prequential`; 0: never.
    """

    folder: Path
    detectors: Sequence[str]
    seeds: int = 3
    mode: str = "exact"
    budget: float = 0.001
    retrain: int = 0


def plan(sources: Sequence[Source], settings: Settings) -> list[Job]:
    """All jobs, those of a series together. Raises ConfigError for a name that is no detector."""
    runs = [
        (detector, seed)
        for detector in settings.detectors
        for seed in range(settings.seeds if seeded(detector) else 1)
    ]
    code, commit = code_digest(), code_commit()
    return [
        Job(
            source=source,
            detector=detector,
            seed=seed,
            mode=settings.mode,
            budget=settings.budget,
            retrain=settings.retrain,
            folder=str(settings.folder),
            code=code,
            commit=commit,
        )
        for source in sources
        for detector, seed in runs
    ]


def execute(jobs: Sequence[Job], folder: Path, pool: Pool, tell: Tell) -> list[Row]:
    """Run what the log does not have, and return the rows of all `jobs`, failures among them.

    Jobs that failed before are run again, unless their series cannot be measured at all.
    A job whose scores are there but not its row was finished just before a kill: it is taken, not
    run again. Raises RunError if another benchmark is at work in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keys = [job.key for job in jobs]
    with locked(folder):
        log = Log(folder / LOG)
        try:
            there = set(score_keys(folder))
            done = {row["key"] for row in log.rows(keys) if _is_done(row, there)}
            left = [job for job, key in zip(jobs, keys, strict=True) if key not in done]
            left = _adopt(left, folder, log)
            if len(left) < len(jobs):
                tell(f"{len(jobs) - len(left)} of {len(jobs)} jobs are done; {len(left)} are left")
            progress = _Progress(len(left), tell)
            for outcome in pool.run(run_job, left):
                row = outcome.result or failed(outcome.job, outcome.reason)
                log.add(outcome.job.key, row)
                progress.step(row)
            write_atomically(folder / RUN, [json.dumps(keys)])
            return log.rows(keys)
        finally:
            log.close()


def recompute(folder: Path, mode: str | None = None) -> tuple[list[Row], int]:
    """The rows of the last run with figures computed anew, and how many of them changed.

    Failures stay what they were. In a folder without a log, such as one that was handed in, the
    rows are those of all score files. `mode` asks for another mode of VUS. Raises DataError for a
    folder without scores, a damaged file, a job of the run with neither scores nor a failure, and a
    series with other labels than were measured.
    """
    wanted = _last_run(folder)
    rows, changed = _failures(folder, wanted, mode), 0
    _check_complete(folder, wanted or set(), {row["key"] for row in rows})
    for key in score_keys(folder):
        if wanted is not None and key not in wanted:
            continue
        scores, row = read_scores(folder, key)
        new = row | {"mode": mode or row["mode"]}
        new |= measure(new, scores, read_stored(folder, row))
        changed += new != row
        rows.append(new | {"evidence": SCORES})
    if not rows:
        raise DataError(
            "there are no score files here",
            where=folder / "scores",
            mend="give the folder of a benchmark, such as runs/bench",
        )
    return sorted(rows, key=lambda row: (row["series"], row["detector"], row["seed"])), changed


def _is_done(row: Row, there: set[str]) -> bool:
    """Other failures may be mended by more time or memory or a package."""
    return row["unusable"] or (row["reason"] is None and row["key"] in there)


def _check_complete(folder: Path, wanted: set[str], failures: set[str]) -> None:
    """A mean over what is left would be over other series for one detector than for another."""
    missing = sorted(wanted - failures - set(score_keys(folder)))
    if missing:
        raise DataError(
            f"the scores of {len(missing)} of {len(wanted)} jobs are missing, first {missing[0]}",
            where=folder / "scores",
            allowed=f"a file for every job in {RUN} that has not failed",
            mend="run the benchmark again without --from-scores: it runs what is missing",
        )


def _last_run(folder: Path) -> set[str] | None:
    path = folder / RUN
    return set(json.loads(path.read_text("utf-8"))) if path.is_file() else None


def _failures(folder: Path, wanted: set[str] | None, mode: str | None) -> list[Row]:
    if wanted is None or not (folder / LOG).is_file():
        return []
    log = Log(folder / LOG)
    try:
        rows = [row for row in log.rows(wanted) if row["reason"] is not None]
    finally:
        log.close()
    return [row | {"mode": mode or row["mode"]} for row in rows]


def code_digest() -> str:
    """SHA-256 over the task's source files: rows of other code are other rows."""
    total = hashlib.sha256()
    for file in sorted(TASK.rglob("*.py")):
        total.update(f"{file.relative_to(TASK)}\n".encode())
        total.update(file.read_bytes())
    return total.hexdigest()[:12]


def code_commit() -> str:
    """The commit that the code is from, or the version where it is no checkout.

    "+changes" behind it stands for what was not committed.
    """
    from importlib.metadata import version

    # A package inside somebody else's checkout, as in a .venv, is none of its files.
    commands = (
        ["git", "ls-files", "--error-unmatch", "__init__.py"],
        ["git", "describe", "--always", "--exclude=*", "--dirty=+changes", "--abbrev=12"],
    )
    said = ""
    for command in commands:
        try:
            done = subprocess.run(command, cwd=TASK, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return f"renshu {version('renshu')}"
        said = done.stdout.strip()
    return said


def _adopt(jobs: Sequence[Job], folder: Path, log: Log) -> list[Job]:
    """Log the jobs whose scores are complete; return the others."""
    there = set(score_keys(folder))
    found: dict[str, Row] = {}
    for job in jobs:
        if job.key in there:
            found[job.key] = read_scores(folder, job.key)[1]
    log.add_all(found.items())
    return [job for job in jobs if job.key not in found]


class _Progress:
    """A line now and then: how many jobs are done, how many failed, how long it will take."""

    def __init__(self, total: int, tell: Tell, seconds: float = 5.0) -> None:
        self._total, self._tell, self._seconds = total, tell, seconds
        self._start = self._last = 0.0
        self._done = self._failed = 0

    def step(self, row: Row) -> None:
        now = time.monotonic()
        self._done += 1
        self._failed += row.get("reason") is not None
        if self._done == 1:  # what the processes take to start is not what a job takes
            self._start = self._last = now
        if now - self._last >= self._seconds or self._done == self._total:
            self._last = now
            pace = (now - self._start) / max(self._done - 1, 1)
            failures = f", {self._failed} failed" if self._failed else ""
            left = f"{pace * (self._total - self._done):.0f} s left"
            self._tell(f"{self._done} of {self._total} jobs{failures}, {left}")
