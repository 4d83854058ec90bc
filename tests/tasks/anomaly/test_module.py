"""Training through the Trainer and the command line: both kinds of detector, saved and measured."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs pip install "renshu[anomaly]"')
pytest.importorskip("pandas", reason='needs pip install "renshu[anomaly]"')

from renshu.cli.main import main
from renshu.errors import CheckpointError, ConfigError, DataError
from renshu_tasks.anomaly import evaluation
from renshu_tasks.anomaly.data import SeriesData
from renshu_tasks.anomaly.module import AnomalyDetector, build, callbacks
from renshu_tasks.anomaly.online import Online
from renshu_tasks.anomaly.options import AnomalyOptions, DataOptions, ModelOptions
from renshu_tasks.anomaly.series import Series
from renshu_tasks.anomaly.thresholds import Decision


@pytest.fixture
def own_csv(write_csv, wave) -> Path:
    """1200 points of two channels, an event of 8 points in the second one."""
    x = wave(1200, channels=2)
    x[1000:1008, 1] += 3
    label = np.zeros(1200, int)
    label[1000:1008] = 1
    return write_csv({"time": np.arange(1200.0) * 60, "a": x[:, 0], "b": x[:, 1], "label": label})


def train(file: Path, *flags: str) -> Path:
    """`renshu train anomaly` in the working directory; returns the run."""
    arguments = ["train", "anomaly", "--data.path", str(file), "--trainer.run", "r"]
    assert main([*arguments, "--trainer.seed", "1", *flags]) == 0
    return Path("runs/r")


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["residual_pca", "iforest", "cnn", "usad"])
def test_from_ones_own_csv_to_predictions(name, own_csv, capsys):
    flags = ["--model.name", name, "--model.window", "20", "--data.train_end", "800"]
    run = train(own_csv, *flags, "--trainer.max_epochs", "3")
    figures = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert figures["events"] == 1 and 0 <= figures["vus_pr"] <= figures["vus_pr_attainable"]
    assert figures["vus_mode"] == "exact" and "vus_window_rule" in figures
    assert (run / "report.html").is_file() and (run / "model/manifest.json").is_file()
    assert not [file for file in run.rglob("*") if file.suffix in (".pkl", ".pt", ".joblib")]

    assert main(["predict", "r", str(own_csv), "--out", "p.csv"]) == 0
    rows = rows_of(Path("p.csv"))
    assert len(rows) == 1200 and rows[0]["row"] == "1" and rows[1]["time"] == "60.0"
    stored = rows_of(run / "evaluation/test/predictions.csv")
    later = np.array([float(row["score"]) for row in rows[800:]])
    known = np.array([float(row["score"]) for row in stored])
    np.testing.assert_allclose(later, known, rtol=1e-5, atol=1e-6 * known.max())

    before = figures["vus_pr"]
    assert main(["evaluate", "r"]) == 0
    again = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert again["vus_pr"] == pytest.approx(before, abs=1e-6)
    assert again["threshold"] == pytest.approx(figures["threshold"], rel=1e-6)


def test_the_same_seed_gives_the_same_run(own_csv):
    flags = ["--model.name", "cnn", "--model.window", "20", "--trainer.max_epochs", "2"]
    figures = []
    for _ in range(2):
        run = train(own_csv, *flags, "--data.train_end", "800")
        figures.append((run / "evaluation/test/metrics.json").read_text())
        run.rename(f"runs/{len(figures)}")
    assert figures[0] == figures[1]


def test_a_detector_is_fitted_once_whatever_the_epochs(own_csv, monkeypatch):
    from renshu_tasks.anomaly.detectors.residual_pca import ResidualPCA

    fits = []
    fit = ResidualPCA._fit
    monkeypatch.setattr(ResidualPCA, "_fit", lambda self, x: (fits.append(x.copy()), fit(self, x)))
    train(own_csv, "--data.train_end", "800", "--trainer.max_epochs", "7")
    assert len(fits) == 1 and fits[0].shape == (640, 2)  # a fifth of the training part is held out


def test_no_test_row_and_no_label_reaches_fit_threshold_or_scaling(own_csv):
    # pains/anomaly.md rows 2, 12
    import pandas as pd

    found = []
    for change in (0, 1):
        table = pd.read_csv(own_csv)
        if change:  # other test rows, other labels of them
            table.loc[800:, ["a", "b"]] = table.loc[800:, ["a", "b"]] * 3 + 7
            table.loc[800:, "label"] = 1 - table.loc[800:, "label"]
        table.to_csv(f"{change}.csv", index=False)
        run = train(Path(f"{change}.csv"), "--model.name", "lof", "--data.train_end", "800")
        module = AnomalyDetector.load_from_checkpoint(run / "model")
        found.append((module.decision.decider().threshold, module.detector.state().arrays))
        run.rename(f"runs/{change}")
    assert found[0][0] == found[1][0]
    for name, array in found[0][1].items():
        np.testing.assert_array_equal(array, found[1][1][name])


def test_the_embedded_series_trains_without_any_file():
    if find_spec("aeon") is None:
        pytest.skip("needs pip install 'renshu[demo]'")
    assert main(["train", "anomaly", "--trainer.run", "d", "--model.name", "difference"]) == 0
    figures = json.loads(Path("runs/d/evaluation/test/metrics.json").read_text())
    assert figures["events"] == 1 and figures["auc_roc"] > 0.9


def test_a_series_without_labels_is_scored_and_not_measured(write_csv, wave, capsys):
    file = write_csv({"a": wave(600)[:, 0]})
    run = train(file)
    figures = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert "vus_pr" not in figures and "no labels" in figures["note"]
    assert "no labels" in capsys.readouterr().err
    assert (run / "report.html").is_file()


def test_a_test_part_without_an_event_is_said(write_csv, wave):
    run = train(write_csv({"a": wave(600)[:, 0], "label": 0}))
    figures = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert "every point of this part is normal" in figures["note"]
    assert figures["false_alarms_a_day"] >= 0


def test_a_small_held_out_part_says_what_it_cannot_show(own_csv, capsys):
    train(own_csv, "--data.train_end", "800")
    assert "160 held-out points cannot show a false-alarm rate of 0.001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--model.name", "poly"], "poly scores one channel, the series has 2"),
        (["--model.name", "lsmt"], "did you mean 'lstm'"),
        (["--model.name", "lof", "--model.trees", "5"], "lof has no trees"),
        (["--model.window", "2000"], "too few"),
        (["--model.name", "cnn", "--model.window", "5"], "10 or more"),
        (["--model.name", "cnn", "--model.window", "300"], "the val part has 120 points"),
        (["--data.train_end", "2"], "too few"),
        (
            ["--training.threshold", "spot", "--training.false_alarms", "0.3"],
            "too few for the tail",
        ),
        (["--training.false_alarms", "0.9"], "out of range"),
        (["--data.train_end", "1004"], "points of the training part are labelled anomalous"),
    ],
)
def test_wrong_input_ends_with_one_clear_message(flags, said, own_csv, capsys):
    arguments = ["train", "anomaly", "--data.path", str(own_csv), *flags]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error


def test_predictions_refuse_other_columns_and_text(own_csv, write_csv, capsys):
    train(own_csv, "--data.train_end", "800")
    other = write_csv({"time": range(900), "a": 0.0, "c": 1.0}, "other.csv")
    assert main(["predict", "r", str(other), "--out", "p.csv"]) == 2
    assert "there is no column 'b'" in capsys.readouterr().err
    text = write_csv({"time": range(900), "a": 0.0, "b": ["x", *range(899)]}, "text.csv")
    assert main(["predict", "r", str(text), "--out", "p.csv"]) == 2
    assert "'x' is no number" in capsys.readouterr().err
    assert not Path("p.csv").exists()


# --- parts


def data_of(values: np.ndarray, train_end: int, labels: np.ndarray | None = None) -> SeriesData:
    return SeriesData(Series("x", values, labels, train_end), DataOptions())


def test_parts_follow_each_other_in_time(wave):
    data = data_of(wave(100), 50)
    assert data.parts == {"train": (0, 40), "val": (40, 50), "test": (50, 100)}
    prints = data.fingerprint()
    assert {part: found["files"] for part, found in prints.items()} == dict.fromkeys(data.parts, 1)
    assert len({found["sha256"] for found in prints.values()}) == 3
    with pytest.raises(DataError, match="no test part"):
        data_of(wave(100), 100).part("test")
    with pytest.raises(DataError, match="too few"):
        data_of(wave(100), 2)


def test_a_parts_scores_look_back_over_its_beginning(wave):
    x = wave(400)
    data = data_of(x, 300)
    options = AnomalyOptions(model=ModelOptions(name="residual_pca", window=20))
    module = build(options, data)
    module.detector.fit(data.train)
    whole = module.detector.score(x, causal=True)
    np.testing.assert_allclose(evaluation.score_part(module, data, "test"), whole[300:], rtol=1e-9)
    np.testing.assert_allclose(
        evaluation.score_part(module, data, "val"), whole[240:300], rtol=1e-9
    )


def test_the_window_is_the_period_of_the_training_part(wave):
    data = data_of(wave(900, period=37), 600)
    assert build(AnomalyOptions(), data).detector.window == 37


def test_the_window_of_the_metric_is_that_of_the_training_part(wave):
    x = np.concatenate([wave(800, period=37), wave(800, period=11)])
    labels = np.zeros(len(x), np.uint8)
    labels[1200:1210] = 1
    data = SeriesData(Series("x", x, labels, train_end=800), DataOptions())
    test = data.part("test")
    flat = np.zeros(len(test))
    outcome = evaluation.Outcome(test, flat, None, flat + 1, flat + 1, flat > 0)
    found = evaluation.measure(outcome, data)
    assert (found["vus_window"], found["vus_window_rule"]) == (37, "period")


def test_only_networks_stop_early():
    assert callbacks(AnomalyOptions()) == []
    names = [
        type(one).__name__ for one in callbacks(AnomalyOptions(model=ModelOptions(name="cnn")))
    ]
    assert names == ["EarlyStopping", "ModelCheckpoint"]


def test_an_unfinished_run_has_no_verdicts(wave):
    module = AnomalyDetector("difference", {}, ["a"])
    module.detector.fit(wave(100))
    with pytest.raises(CheckpointError, match="no threshold yet"):
        Online(module)


def test_unknown_parameters_of_a_detector_are_refused():
    with pytest.raises(ConfigError, match="parameter 'depth'"):
        AnomalyDetector("iforest", {"depth": 3}, ["a"])


# --- figures


def test_calibration_error_is_the_excess_over_the_diagonal():
    n = 1000
    assert evaluation.calibration_error(np.arange(1, n + 1) / n) == pytest.approx(0, abs=1e-9)
    assert evaluation.calibration_error(np.full(n, 0.1)) == pytest.approx(0.9)
    assert evaluation.calibration_error(np.ones(n)) == 0


def test_coverage_leaves_out_the_nearest_to_the_threshold(wave):
    labels = np.array([0, 0, 1, 1, 0, 1], np.uint8)
    series = Series("x", np.zeros((6, 1)), labels)
    scores = np.array([0.1, 0.2, 9.0, 1.1, 1.2, 0.9])
    outcome = evaluation.Outcome(series, scores, None, scores, np.ones(6), scores > 1)
    rows = evaluation.coverage(outcome)
    assert rows[-1] == {"coverage": 1.0, "risk": pytest.approx(2 / 6)}
    assert rows[0] == {"coverage": 0.5, "risk": 0.0}


def test_an_alarm_names_its_channel(wave):
    x = wave(500, channels=3)
    x[400, 2] += 8
    data = data_of(x, 300)
    module = build(AnomalyOptions(model=ModelOptions(name="zscore", window=50)), data)
    module.detector.fit(data.train)
    module.decision = Decision.fit(evaluation.score_part(module, data, "val"), "conformal", 0.001)
    found = evaluation.events(evaluation.judge(module, data, "test"), 300)
    alarm = next(alarm for alarm in found["alarms"] if alarm["first"] <= 400 <= alarm["last"])
    assert alarm["channel"] == "c2" and alarm["share"] > 0.5
