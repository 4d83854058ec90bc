"""`renshu bench anomaly` as a user runs it: rows, resuming after a kill, scores computed again."""

from __future__ import annotations

import csv
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.bench import sources
from renshu_tasks.anomaly.bench.command import run
from renshu_tasks.anomaly.bench.log import Log
from renshu_tasks.anomaly.bench.pool import Outcome
from renshu_tasks.anomaly.bench.runner import Settings, execute, plan, recompute
from renshu_tasks.anomaly.bench.stored import read_scores, write_scores

FIXED = ("random", "constant", "difference")


def write_series(folder: Path, count: int, points: int = 600) -> Path:
    """Noisy sines with one jump behind the first half: files of the bench's own kind."""
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        values = np.sin(np.arange(points) / 5) + 0.1 * rng.standard_normal(points)
        labels = np.zeros(points, dtype=int)
        start = int(rng.integers(points // 2 + 20, points - 60))
        labels[start : start + 20] = 1
        values[labels == 1] += 2
        lines = [f"{value},{label}" for value, label in zip(values, labels, strict=True)]
        (folder / f"s{number:02d}.csv").write_text("value,label\n" + "\n".join(lines) + "\n")
    return folder


def bench(tmp_path: Path, *arguments: str) -> list[str]:
    said: list[str] = []
    fixed = ["--folder", str(tmp_path / "out"), "--part", "all", "--workers", "1"]
    assert run([*fixed, *arguments], said.append) == 0
    return said


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "rows.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A benchmark of 12 series and three detectors, one of which draws numbers."""
    root = tmp_path_factory.mktemp("bench")
    data = write_series(root / "data", 12)
    bench(root, "--data", str(data), "--detectors", ",".join(FIXED), "--seeds", "2")
    return root / "out"


def test_every_job_has_a_row_that_says_how_it_was_measured(finished: Path) -> None:
    # pains/anomaly.md rows 6 and 20
    found = rows(finished)
    assert len(found) == 12 * (2 + 1 + 1)
    for row in found:
        assert row["mode"] == "exact"
        assert row["window_rule"] == "period"
        assert int(row["window"]) in range(28, 36)
        assert row["origin"] == "real"
        assert row["commit"]
        assert row["code"]
        assert float(row["vus_pr"]) <= float(row["vus_pr_max"]) + 1e-12


def test_figures_from_the_score_files_are_those_of_the_run(finished: Path) -> None:
    again, changed = recompute(finished)
    assert changed == 0
    assert len(again) == len(rows(finished))
    said: list[str] = []
    before = (finished / "rows.csv").read_text()
    assert {row["evidence"] for row in rows(finished)} == {"code"}
    assert run(["--from-scores", str(finished)], said.append) == 0
    assert said[0].startswith("48 rows computed again")
    assert said[0].endswith("0 differ from before")
    assert {row["evidence"] for row in rows(finished)} == {"scores"}
    assert (finished / "rows.csv").read_text().replace(",scores,", ",code,") == before
    (finished / "rows.csv").write_text(before)


def test_scores_that_were_altered_are_refused(finished: Path, tmp_path: Path) -> None:
    # pains/anomaly.md row 20
    folder = shutil.copytree(finished, tmp_path / "handed in")
    row = rows(folder)[0]
    scores, about = read_scores(folder, row["key"])
    assert row["scores"] == about["scores"]  # the table's own word for the file
    write_scores(folder, row["key"], scores + 1, about)
    with pytest.raises(DataError, match="not those that the row was measured on"):
        recompute(folder)


def test_detectors_that_learn_again_are_other_jobs(tmp_path: Path) -> None:
    # pains/anomaly.md row 40
    data = write_series(tmp_path / "data", 2)
    told = ["--data", str(data), "--detectors", "zscore,sub_pca"]
    bench(tmp_path, *told)
    once = {row["key"]: row for row in rows(tmp_path / "out")}
    bench(tmp_path, *told, "--retrain", "100")
    again = {row["key"]: row for row in rows(tmp_path / "out")}
    assert len(once) == len(again) == 4 and not once.keys() & again.keys()
    assert {row["retrain"] for row in again.values()} == {"100"}
    assert all(float(row["vus_pr"]) > 0.1 for row in again.values())


def test_another_mode_is_computed_for_all_rows_and_never_mixed(finished: Path) -> None:
    # pains/anomaly.md row 8
    from renshu_tasks.anomaly.bench.table import standings

    exact, other = recompute(finished)[0], recompute(finished, "tsb_ad")[0]
    assert {row["mode"] for row in other} == {"tsb_ad"}
    assert all(row["vus_pr_max"] is None for row in other)
    with pytest.raises(DataError, match="several modes"):
        standings([*exact, *other])


@pytest.mark.slow
def test_the_table_is_the_same_for_any_number_of_workers(finished: Path, tmp_path: Path) -> None:
    data = finished.parent / "data"
    bench(tmp_path, "--data", str(data), "--detectors", ",".join(FIXED), "--seeds", "2",
          "--workers", "3")  # fmt: skip
    # Other code may have been checked out in between; that is in these columns alone.
    clocks = ("seconds", "points_a_second", "commit", "code", "key")

    def plain(folder: Path) -> list[dict[str, str]]:
        return [{k: v for k, v in row.items() if k not in clocks} for row in rows(folder)]

    assert plain(tmp_path / "out") == plain(finished)


def test_a_finished_benchmark_runs_nothing_again(finished: Path) -> None:
    before = (finished / "rows.csv").read_text()
    data = finished.parent / "data"
    said = bench(finished.parent, "--data", str(data), "--detectors", ",".join(FIXED),
                 "--seeds", "2")  # fmt: skip
    assert "48 of 48 jobs are done; 0 are left" in said
    assert (finished / "rows.csv").read_text() == before


@pytest.mark.slow
def test_killed_and_started_again_it_runs_nothing_twice(tmp_path: Path) -> None:
    data = write_series(tmp_path / "data", 20)
    command = [sys.executable, "-m", "renshu", "bench", "anomaly", "--data", str(data)]
    command += ["--folder", str(tmp_path / "out"), "--part", "all", "--detectors", "random,zscore"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    scores, deadline = tmp_path / "out" / "scores", time.monotonic() + 120
    while len(list(scores.glob("*.safetensors"))) < 10 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = {path: path.stat().st_mtime_ns for path in scores.glob("*.safetensors")}
    assert 10 <= len(first) < 80
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{len(first)} of 80 jobs are done" in said
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list(scores.glob("*.safetensors"))) == 80
    log = Log(tmp_path / "out" / "jobs.sqlite")
    assert len(log.rows()) == 80


def test_every_bad_input_is_a_row_with_its_reason(tmp_path: Path) -> None:
    data = write_series(tmp_path / "data", 1)
    good = (data / "s00.csv").read_text().splitlines()
    (data / "text.csv").write_text("\n".join([*good[:5], "abc,0", *good[6:]]) + "\n")
    (data / "nothing.csv").write_text(
        "value,label\n" + "\n".join(line[:-1] + "0" for line in good[1:]) + "\n"
    )
    (data / "huge.csv").write_text("\n".join([*good[:5], "1e308,0", *good[6:]]) + "\n")
    (data / "two.csv").write_text(
        "a,b,label\n" + "\n".join(f"{line.split(',')[0]},{line}" for line in good[1:]) + "\n"
    )
    (data / "short.csv").write_text("\n".join([*good[:20], "9,1", "0,0"]) + "\n")
    said = bench(tmp_path, "--data", str(data), "--detectors", "difference,sub_knn,poly")
    reasons = {
        (row["series"], row["detector"]): row["reason"]
        for row in rows(tmp_path / "out")
        if row["reason"]
    }
    assert "'abc'" in reasons["text", "difference"]
    assert "all labels behind the training part are 0" in reasons["nothing", "difference"]
    assert "too large" in reasons["huge", "difference"]
    assert "channel" in reasons["two", "poly"]
    assert "too few" in reasons["short", "sub_knn"]
    assert not any(series == "s00" for series, _ in reasons)
    line = next(line for line in said if line.startswith("no result on nothing"))
    assert line.endswith("(difference, poly, sub_knn)")
    assert "2 series cannot be measured and are left out for all alike" in said  # text, nothing
    again, _ = recompute(tmp_path / "out")
    assert {(row["series"], row["detector"]) for row in again if row["reason"]} == set(reasons)


class Here:
    """A pool of this very process: the same `run` as on processes or a cluster."""

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome]:
        for job in jobs:
            try:
                yield Outcome(job, function(job))
            except Exception as error:
                yield Outcome(job, reason=f"{type(error).__name__}: {error}")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda scores: scores[:-1], "gave scores"),
        (lambda scores: np.where(np.arange(len(scores)) == 350, np.nan, scores), "score nan"),
        (lambda scores: scores - 1e9, "score -1"),
        (lambda scores: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_a_detector_that_breaks_its_contract_is_a_row_with_the_reason(
    wrong: Callable[[np.ndarray], np.ndarray],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from renshu_tasks.anomaly.detectors.baselines import Difference

    right = Difference._score
    monkeypatch.setattr(Difference, "_score", lambda *given: wrong(right(*given)))
    found = sources.folder(write_series(tmp_path / "data", 2))
    settings = Settings(folder=tmp_path / "out", detectors=["difference", "constant"])
    rows = execute(plan(found, settings), settings.folder, Here(), print)
    reasons = {row["detector"]: row.get("reason") for row in rows}
    assert said in reasons["difference"]
    assert reasons["constant"] is None
    assert len(rows) == 4


def test_a_missing_score_file_is_named_and_run_again(tmp_path: Path) -> None:
    found = sources.folder(write_series(tmp_path / "data", 2))
    settings = Settings(folder=tmp_path / "out", detectors=["difference", "constant"])
    jobs = plan(found, settings)
    execute(jobs, settings.folder, Here(), print)
    victim = settings.folder / "scores" / f"{jobs[0].key}.safetensors"
    victim.unlink()
    with pytest.raises(DataError, match=f"the scores of 1 of 4 jobs are missing.*{jobs[0].key}"):
        recompute(settings.folder)
    execute(jobs, settings.folder, Here(), print)
    assert victim.is_file() and len(recompute(settings.folder)[0]) == 4


def test_scores_are_never_measured_against_other_labels(tmp_path: Path) -> None:
    from renshu_tasks.anomaly.bench import stored

    found = sources.folder(write_series(tmp_path / "data", 1))
    settings = Settings(folder=tmp_path / "out", detectors=["constant"])
    row = execute(plan(found, settings), settings.folder, Here(), print)[0]
    series = stored.read_stored(settings.folder, row)
    series.labels[-1] = 1 - series.labels[-1]
    other = row | {"code": "of another version"}
    stored.write_series(settings.folder, other, series)  # beside the old one, not over it
    assert stored.read_stored(settings.folder, row).labels[-1] != series.labels[-1]
    with pytest.raises(DataError, match="not those that the row was measured on"):
        stored.read_stored(settings.folder, other)


def test_failed_jobs_run_again_and_unusable_series_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from renshu_tasks.anomaly.detectors.baselines import Difference

    class Counting(Here):
        def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome]:
            ran.extend(jobs)
            return super().run(function, jobs)

    ran: list[Any] = []
    data = write_series(tmp_path / "data", 2)
    lines = (data / "s01.csv").read_text().splitlines()
    flat = "\n".join([lines[0], *(f"{line.partition(',')[0]},0" for line in lines[1:])])
    (data / "s01.csv").write_text(flat + "\n")  # nothing to find: unusable
    settings = Settings(folder=tmp_path / "out", detectors=["difference", "constant"])
    jobs = plan(sources.folder(data), settings)
    with monkeypatch.context() as broken:
        broken.setattr(Difference, "_score", lambda *given: 1 / 0)
        first = execute(jobs, settings.folder, Counting(), print)
    assert len(ran) == 4 and sum(row["reason"] is not None for row in first) == 3
    ran.clear()
    again = execute(jobs, settings.folder, Counting(), print)
    assert [(job.source.name, job.detector) for job in ran] == [("s00", "difference")]
    assert {row["series"] for row in again if row["reason"]} == {"s01"} and len(again) == 4


def test_a_failed_job_counts_as_0_and_is_counted(tmp_path: Path) -> None:
    from renshu_tasks.anomaly.bench.table import standings

    base = {"detector": "d", "seed": 0, "mode": "exact", "group": "g", "seconds": 1.0}
    base |= {"reason": None, "unusable": False}
    found = [base | {"series": f"s{i}", "vus_pr": 0.5} for i in range(3)]
    found.append(base | {"series": "s3", "vus_pr": None, "reason": "hung", "seconds": None})
    standing = standings(found)[0]
    assert standing.value == pytest.approx(0.375)
    assert (standing.failed, standing.jobs) == (1, 4)
    assert standing.low is None  # four series are too few for an interval


def test_changed_labels_are_another_job(tmp_path: Path) -> None:
    # pains/anomaly.md row 29
    data = write_series(tmp_path / "data", 1)
    before = sources.folder(data)[0]
    text = (data / "s00.csv").read_text()
    (data / "s00.csv").write_text(text.replace(",1\n", ",0\n", 1))
    assert sources.folder(data)[0].stamp != before.stamp


@pytest.mark.skipif(find_spec("aeon") is None, reason="aeon ships the series")
def test_tuning_and_evaluation_share_no_series(tmp_path: Path) -> None:
    # pains/anomaly.md row 2
    found = sources.embedded()
    names = {part: {s.name for s in found if s.part == part} for part in ("tuning", "evaluation")}
    assert not names["tuning"] & names["evaluation"]
    assert len(names["evaluation"]) >= 20
    sensors = {part: {name.partition("_")[0] for name in names[part]} for part in names}
    assert not sensors["tuning"] & sensors["evaluation"]
    parts = [sources.part_of(f"series {number}") for number in range(1000)]
    assert 150 < parts.count("tuning") < 260
    data = write_series(tmp_path / "data", 2)
    alone = sources.folder(data / "s01.csv")[0]
    assert alone.part == sources.folder(data)[1].part  # whatever else is in the folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "no such file"),
        (["--detectors", "sub_pcs"], "did you mean 'sub_pca'"),
        (["--figure", "vus"], "there is no figure to rank by 'vus'"),
        (["--figure", "delay"], "there is no figure to rank by 'delay'"),  # less is better
        (["--published", "nowhere.csv"], "cannot be read"),
        (["--workers", "0"], "1 or more"),
        (["--mode", "tsbad"], "invalid choice"),
        (["--from-scores", "nowhere"], "no score files"),
        (["--from-scores", "x", "--data", "y"], "reads no data"),
        (["--nothing"], "unrecognized"),
    ],
)
def test_wrong_arguments_are_told(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, DataError), match=said):
        run(arguments, print)
    assert not list(tmp_path.iterdir())


def test_published_values_stand_beside_ours(finished: Path, tmp_path: Path) -> None:
    published = tmp_path / "published.csv"
    published.write_text("series,detector,vus_pr\ns00,random,0.25\nother,random,0.5\n")
    said: list[str] = []
    run(["--from-scores", str(finished), "--published", str(published)], said.append)
    lines = [line for line in said if "published" in line]
    assert len(lines) == 2  # two seeds
    assert lines[0].startswith("s00, random: published 0.2500, here 0.")
    published.write_text("series,detector,vus_pr\ns00,random,many\n")
    with pytest.raises(DataError, match="could not convert"):
        run(["--from-scores", str(finished), "--published", str(published)], said.append)


def test_a_damaged_score_file_is_named(finished: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    victim = sorted((copy / "scores").glob("*.safetensors"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged") as error:
        recompute(copy)
    assert victim.name in str(error.value)


@pytest.mark.slow
def test_without_data_it_runs_on_real_and_planted_series(tmp_path: Path) -> None:
    if not (find_spec("aeon") and find_spec("streamad")):
        pytest.skip("aeon and streamad ship the series")
    said: list[str] = []
    run(["--folder", str(tmp_path), "--detectors", "random,constant,difference"], said.append)
    found = rows(tmp_path)
    names = {origin: {r["series"] for r in found if r["origin"] == origin} for origin in
             ("real", "planted")}  # fmt: skip
    assert names["real"] == {"internal_bleeding", "uni_ds"}
    assert len(names["real"] | names["planted"]) >= 20
    assert {row["part"] for row in found} == {"evaluation"}
    assert not any(row["reason"] for row in found)
    assert any("2 real, 18 with planted events" in line for line in said)
