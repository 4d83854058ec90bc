"""The report's sections hold what the evaluation wrote, and say what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason='needs pip install "renshu[anomaly]"')

from renshu.errors import DataError
from renshu.report.parts import Chart, Table
from renshu_tasks.anomaly import evaluation
from renshu_tasks.anomaly.data import SeriesData
from renshu_tasks.anomaly.module import build
from renshu_tasks.anomaly.options import AnomalyOptions, DataOptions, ModelOptions
from renshu_tasks.anomaly.plots import sections
from renshu_tasks.anomaly.series import Series


@pytest.fixture
def run(wave, tmp_path) -> Path:
    """An evaluated run: 4000 points, two channels, an event that is found."""
    x = wave(4000, channels=2)
    x[3000:3010, 1] += 4
    labels = np.zeros(4000, np.uint8)
    labels[3000:3010] = 1
    labels[3500] = 1  # nothing happens there
    data = SeriesData(Series("x", x, labels, 2000, channels=("<b>a", "b")), DataOptions())
    module = build(AnomalyOptions(model=ModelOptions(window=10)), data)
    module.detector.fit(data.train)
    evaluation.calibrate(module, data)
    evaluation.evaluate(module, data, "test", tmp_path)
    return tmp_path


def part(run: Path, title: str, caption: str):
    section = next(one for one in sections(run) if one.title == title)
    return next(p for p in section.parts if getattr(p, "title", None) == caption
                or getattr(p, "caption", None) == caption)  # fmt: skip


def test_the_sections_in_their_order(run):
    titles = [section.title for section in sections(run)]
    assert titles == ["Scores", "Alarms", "Calibration", "Abstention", "Use and limits"]
    names = [headline.name for headline in sections(run)[0].headlines]
    assert names == ["Test VUS-PR", "Test AUC-PR", "Test event F1", "Test false alarms a day"]


def test_scores_keep_their_peaks_and_events_are_shaded(run):
    chart = part(run, "Scores", "Score and threshold")
    assert isinstance(chart, Chart) and chart.wide
    scores = next(trace for trace in chart.traces if trace["name"] == "score")
    assert len(scores["x"]) <= 1000
    peak = scores["x"][int(np.argmax(scores["y"]))]
    assert 3000 <= peak <= 3020
    shapes = [(shape["x0"], shape["x1"]) for shape in chart.layout["shapes"]]
    assert shapes == [(2999.5, 3009.5), (3499.5, 3500.5)]


def test_found_and_missed_events_are_told_apart(run):
    table = part(run, "Alarms", "Labelled events")
    assert isinstance(table, Table)
    assert list(map(list, table.rows)) == [[3000, 3009, "found"], [3500, 3500, "missed"]]
    alarms = part(run, "Alarms", "Alarms")
    assert "b" in {row[4] for row in alarms.rows}


def test_a_run_without_an_evaluation_says_so(tmp_path):
    assert "renshu evaluate" in sections(tmp_path)[0].empty


def test_a_torn_evaluation_is_an_error_with_its_folder(run):
    file = run / "evaluation" / "test" / "events.json"
    file.write_text(json.dumps({"labelled": []}))
    with pytest.raises(DataError, match="cannot be shown") as error:
        sections(run)
    assert str(file.parent) in str(error.value)
