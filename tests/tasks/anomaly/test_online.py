"""Streams and files of any length: the same verdicts in pieces, bounded memory, replay."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs pip install "renshu[anomaly]"')
pytest.importorskip("pandas", reason='needs pip install "renshu[anomaly]"')

from renshu.errors import DataError
from renshu_tasks.anomaly.module import AnomalyDetector
from renshu_tasks.anomaly.online import Online
from renshu_tasks.anomaly.options import AnomalyOptions
from renshu_tasks.anomaly.predict import predict
from renshu_tasks.anomaly.replay import latencies, main, replay
from renshu_tasks.anomaly.sampling import Holder, Placer
from renshu_tasks.anomaly.thresholds import Decision, decide


def trained(wave, name: str = "residual_pca", **told) -> AnomalyDetector:
    """A detector of one channel "v" with a threshold."""
    parameters = {"window": 20} if name != "difference" else {}
    module = AnomalyDetector(name, parameters, ["v"], **told)
    x = wave(700)
    module.detector.fit(x[:500])
    module.decision = Decision.fit(module.detector.score(x, causal=True)[500:], "spot", 0.001)
    return module


def assert_same(rows, expected: list[dict]) -> None:
    """The same rows, with scores equal to 1e-9."""
    rows = list(rows)
    assert [row["row"] for row in rows] == [row["row"] for row in expected]
    assert [row["alarm"] for row in rows] == [row["alarm"] for row in expected]
    for key in ("time", "score", "p_value", "threshold"):
        found, known = ([row[key] for row in one] for one in (rows, expected))
        np.testing.assert_allclose(found, known, atol=1e-9, rtol=0)


def test_online_verdicts_are_those_of_the_batch(wave):
    module, x = trained(wave), wave(300, seed=3)
    x[200] += 5
    scores = module.detector.score(x, causal=True)
    first = module.detector.memory - 1  # no point before it has a score
    thresholds, alarms = decide(module.decision, scores[first:])
    online = Online(module)
    verdicts = [online.update(value) for value in x]
    np.testing.assert_allclose([v.score for v in verdicts], scores, atol=1e-9)
    np.testing.assert_allclose([v.threshold for v in verdicts[first:]], thresholds, rtol=1e-9)
    assert [v.alarm for v in verdicts[first:]] == alarms.tolist() and alarms[200 - first :].any()
    assert not any(v.alarm for v in verdicts[:first])


def test_dspot_does_not_learn_from_the_zeros_before_the_first_score(wave):
    module, x = AnomalyDetector("sub_knn", {"window": 120}, ["v"]), wave(1600)
    module.detector.fit(x[:500])
    module.decision = Decision.fit(module.detector.score(x, causal=True)[500:1300], "dspot", 0.001)
    online = Online(module)
    verdicts = [
        verdict for part in np.split(x[1300:], [50, 130]) for verdict in online.extend(part)
    ]
    assert not any(verdict.alarm for verdict in verdicts)
    zeros = module.detector.score(x[1300:], causal=True)
    assert decide(module.decision, zeros)[1][119:200].mean() > 0.9  # what learning from them does


def test_a_refused_point_leaves_the_stream_as_it_was(wave):
    module, x = trained(wave), wave(80, seed=3)
    online, expected = Online(module), module.detector.score(x, causal=True)
    for row, value in enumerate(x):
        if row in (3, 60):
            with pytest.raises(DataError, match="nan in channel 0"):
                online.update(np.nan)
        assert online.update(value).score == pytest.approx(expected[row], abs=1e-9)


def test_a_file_in_pieces_has_the_same_rows(wave, write_csv, monkeypatch):
    module = trained(wave, period=1.0, sampling="grid")
    times = np.delete(np.arange(400.0), [50, 51, 200])  # gaps hold the value before
    values = wave(397, seed=4)[:, 0]
    values[[10, 90, 91]] = np.nan
    file = write_csv({"time": times, "v": values})
    whole = list(predict(module, [file], AnomalyOptions()))
    assert len(whole) == 397 and [row["row"] for row in whole] == list(range(1, 398))
    for size in (7, 90):
        monkeypatch.setattr("renshu_tasks.anomaly.tables.read_rows.__defaults__", (size,))
        assert_same(predict(module, [file], AnomalyOptions()), whole)


def test_rows_of_one_period_share_a_verdict(wave, write_csv, monkeypatch):
    module = trained(wave, period=10.0, sampling="mean")
    times = np.sort(np.random.default_rng(0).uniform(0, 1500, 450))
    file = write_csv({"time": times, "v": wave(450)[:, 0]})
    whole = list(predict(module, [file], AnomalyOptions()))
    assert len(whole) == 450
    places = np.floor((times - times[0]) / 10).astype(int)
    for a, b, one, two in zip(whole, whole[1:], places, places[1:], strict=False):
        assert (one != two) or a["score"] == b["score"]
    for size in (13,):
        monkeypatch.setattr("renshu_tasks.anomaly.tables.read_rows.__defaults__", (size,))
        assert_same(predict(module, [file], AnomalyOptions()), whole)


def test_each_file_is_a_series_of_its_own(wave, write_csv):
    module = trained(wave)
    one = write_csv({"v": wave(100)[:, 0]}, "1.csv")
    two = write_csv({"v": wave(100, seed=5)[:, 0]}, "2.csv")
    both = list(predict(module, [one, two], AnomalyOptions()))
    assert both[100:] == list(predict(module, [two], AnomalyOptions()))
    assert both[100]["row"] == 1 and both[100]["file"].endswith("2.csv")


def test_a_file_shorter_than_the_window_has_scores_of_0(wave, write_csv):
    rows = list(predict(trained(wave), [write_csv({"v": wave(12)[:, 0]})], AnomalyOptions()))
    assert [row["score"] for row in rows] == [0.0] * 12 and not any(row["alarm"] for row in rows)


def test_errors_name_the_row_in_the_file_not_in_the_piece(wave, write_csv, monkeypatch):
    module = trained(wave, period=1.0, sampling="grid")
    monkeypatch.setattr("renshu_tasks.anomaly.tables.read_rows.__defaults__", (50,))
    times = np.arange(300.0)
    times[177] = times[176]
    with pytest.raises(DataError, match="row 178"):
        list(predict(module, [write_csv({"time": times, "v": 0.0})], AnomalyOptions()))
    values = ["0.5"] * 300
    values[222] = "x"
    with pytest.raises(DataError, match="row 223"):
        list(predict(module, [write_csv({"time": range(300), "v": values})], AnomalyOptions()))


def test_memory_does_not_grow_with_the_file(wave, tmp_path, monkeypatch):
    module = trained(wave, "difference")
    monkeypatch.setattr("renshu_tasks.anomaly.tables.read_rows.__defaults__", (5000,))
    peaks = []
    for rows in (10_000, 30_000):
        file = tmp_path / f"{rows}.csv"
        file.write_text("v\n" + "0.25\n0.5\n" * (rows // 2))
        tracemalloc.start()
        assert sum(1 for _ in predict(module, [file], AnomalyOptions())) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1.5e6  # 20,000 rows more are 10 MB


@pytest.mark.nightly
def test_ten_million_rows(wave, tmp_path):
    module = trained(wave, "difference")
    file = tmp_path / "long.csv"
    with file.open("w") as out:
        out.write("v\n")
        for _ in range(100):
            out.write("0.25\n0.5\n" * 50_000)
    tracemalloc.start()
    rows = sum(1 for _ in predict(module, [file], AnomalyOptions()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 10_000_000 and peak < 500e6


def test_a_replay_gives_every_point_with_its_latency(wave, write_csv):
    module = trained(wave)
    values = wave(60)
    found = list(replay(module, write_csv({"v": values[:, 0]})))
    assert [one.row for one in found] == list(range(60))
    expected = module.detector.score(values, causal=True)
    np.testing.assert_allclose([one.verdict.score for one in found], expected, atol=1e-9)
    told = latencies([one.seconds for one in found])
    assert 0 < told["median_ms"] <= told["p99_ms"] <= told["max_ms"] < 1000


def test_a_replay_keeps_its_speed(wave, write_csv):
    file = write_csv({"time": np.arange(30.0) * 60, "v": wave(30)[:, 0]})
    start = time.perf_counter()
    assert len(list(replay(trained(wave), file, speed=6000))) == 30
    assert time.perf_counter() - start >= 0.28  # 29 minutes at 6000 times


def test_a_replay_reads_the_file_as_the_model_was_trained(wave, write_csv):
    module = trained(wave, period=10.0, sampling="mean")
    times = np.sort(np.random.default_rng(0).uniform(0, 1500, 450))
    labels = np.r_[np.ones(100), np.zeros(350)].astype(int)  # not looked at
    file = write_csv({"time": times, "other": 0.0, "v": wave(450)[:, 0], "label": labels})
    points = [one.verdict.score for one in replay(module, file)]
    rows = list(predict(module, [file], AnomalyOptions()))
    places = np.floor((times - times[0]) / 10).astype(int)
    np.testing.assert_allclose([row["score"] for row in rows], np.array(points)[places], atol=1e-9)


def test_a_replay_from_the_command_line_tells_alarms_and_latency(
    wave, write_csv, tmp_path, monkeypatch, capsys
):
    from renshu.cli.main import main as renshu

    monkeypatch.chdir(tmp_path)
    values = wave(800)[:, 0]
    write_csv({"v": values}, "own.csv")
    values[600] += 8
    write_csv({"v": values}, "new.csv")
    told = ["--data.path", "own.csv", "--model.window", "20", "--trainer.run", "r"]
    assert renshu(["train", "anomaly", *told]) == 0
    capsys.readouterr()
    assert main(["r", "new.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(("point 600: alarm", "point 601: alarm")) for line in lines)
    assert lines[-1].startswith("800 points, ") and "p99_ms" in lines[-1]
    for wrong, said in ([["r", "new.csv", "--speed", "0"], "no speed"], [["x", "a"], "no run"]):
        assert main(wrong) == 2
        assert said in capsys.readouterr().err


def test_gaps_are_counted_over_pieces():
    whole = np.array([1.0, *[np.nan] * 6, 2.0])[:, None]
    holder = Holder(6, "x")
    pieces = [holder.feed(part)[0] for part in np.split(whole, [3, 5])]
    assert np.concatenate(pieces)[:, 0].tolist() == [1] * 7 + [2]
    holder = Holder(5, "x")
    with pytest.raises(DataError, match="a gap of 6 points"):
        [holder.feed(part) for part in np.split(whole, [3, 7])]


def test_places_go_on_over_pieces():
    placer, times = Placer(1.0, False, "x"), np.array([0.0, 1.02, 2.0, 5.0, 6.0])
    pieces = [placer.places(part) for part in np.split(times, [2, 3])]
    assert np.concatenate(pieces).tolist() == [0, 1, 2, 5, 6]
    with pytest.raises(DataError, match="row 6"):
        placer.places(np.array([6.0]))


@pytest.mark.parametrize("wrong", [1e200, float("nan"), [1.0, 2.0]])
def test_a_point_that_is_refused_leaves_a_young_stream_as_it_was(wave, wrong):
    """Before the first score as well, where no detector looks at the points yet."""
    x = wave(60)
    detector = trained(wave).detector
    streams = detector.stream(), detector.stream()
    for number, point in enumerate(x):
        if number == 5:
            with pytest.raises(DataError):
                streams[0].update(wrong)
        one, other = (stream.update(point) for stream in streams)
        assert one == other
    assert one > 0
