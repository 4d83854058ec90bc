"""The report's sections about a classifier: of two classes, of many, with several labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from renshu.errors import DataError
from renshu.report import Chart, Section, Table
from renshu_tasks.image_classification.metrics import confusion_matrix, evaluate
from renshu_tasks.image_classification.plots import sections


def evaluated(
    run: Path, logits: Tensor, labels: Tensor, thresholds: list[float], temperature: float = 2.0
) -> Path:
    """A run folder with a test part evaluated from these logits."""
    several, classes = labels.ndim == 2, logits.shape[1]
    names = [f"class {k}" for k in range(classes)]
    scaled = logits / temperature
    probabilities = scaled.sigmoid() if several else scaled.softmax(1)
    if several:
        predicted = probabilities >= torch.tensor(thresholds)
    elif classes == 2:
        predicted = (probabilities[:, 1] >= thresholds[1]).long()
    else:
        predicted = probabilities.argmax(1)
    folder = run / "evaluation" / "test"
    folder.mkdir(parents=True)
    figures = {"classes": names, "temperature": temperature, "thresholds": thresholds}
    figures |= evaluate(probabilities, labels, predicted, names)
    (folder / "metrics.json").write_text(json.dumps(figures))
    if not several:
        rows = confusion_matrix(labels, predicted, classes).tolist()
        (folder / "confusion.json").write_text(json.dumps({"classes": names, "rows": rows}))
    arrays = {"probabilities": probabilities, "logits": logits, "labels": labels}
    save_file(arrays, folder / "arrays.safetensors")
    return run


def kinds(classes: int, several: bool = False) -> tuple[Tensor, Tensor]:
    """200 pictures' logits that know a little of their labels."""
    logits = torch.randn(200, classes)
    labels = (torch.arange(200) * 7) % classes
    if several:
        hot = (torch.rand(200, classes) < 0.3).float()
        return logits + 3 * hot - 1, hot
    logits[torch.arange(200), labels] += 2
    return logits, labels


def named(found: list[Section], title: str) -> Section:
    return next(section for section in found if section.title == title)


def chart(section: Section, title: str) -> Chart:
    return next(p for p in section.parts if isinstance(p, Chart) and p.title.startswith(title))


@pytest.mark.parametrize(
    ("classes", "several", "thresholds"),
    [(5, False, [0.5] * 5), (2, False, [0.5, 0.2]), (4, True, [0.1, 0.4, 0.6, 0.9])],
    ids=["one of five", "two with a threshold", "several"],
)
def test_the_calibration_error_drawn_is_the_one_measured(
    tmp_path: Path, classes: int, several: bool, thresholds: list[float]
) -> None:
    """Decisions, confidences and bins are those of the metrics, whatever kind of labels."""
    run = evaluated(tmp_path, *kinds(classes, several), thresholds)
    measured = json.loads((run / "evaluation/test/metrics.json").read_text())["ece"]["value"]
    names = [t["name"] for t in chart(named(sections(run), "Calibration"), "Reliability").traces]
    assert names[1] == f"calibrated: error {measured:.3f}"
    before = torch.tensor(float(names[0].removeprefix("before: error ")))
    assert abs(before - measured) > 0.01, "the temperature of 2 makes a difference"


def test_without_temperature_both_curves_agree(tmp_path: Path) -> None:
    run = evaluated(tmp_path, *kinds(5), [0.5] * 5, temperature=1.0)
    before, after, _ = chart(named(sections(run), "Calibration"), "Reliability").traces
    assert before["x"] == pytest.approx(after["x"], abs=1e-6)
    assert before["y"] == after["y"]


def test_several_labels_have_no_confusion_matrix(tmp_path: Path) -> None:
    found = sections(evaluated(tmp_path, *kinds(4, several=True), [0.5] * 4))
    assert "Confusion" not in [section.title for section in found]
    assert "Classes" in [section.title for section in found]


def test_balance_counts_what_is_true_and_what_was_decided(tmp_path: Path) -> None:
    logits, labels = kinds(2)
    balance = chart(named(sections(evaluated(tmp_path, logits, labels, [0.5, 0.2])), "Classes"), "")
    decided = (logits / 2).softmax(1)[:, 1] >= 0.2
    assert balance.traces[0]["y"] == torch.bincount(labels).tolist()
    assert balance.traces[1]["y"] == [int((~decided).sum()), int(decided.sum())]


def test_a_class_without_pictures_has_dashes(tmp_path: Path) -> None:
    logits, labels = kinds(3)
    logits[:, 2] = -50
    run = evaluated(tmp_path, logits, labels.clamp(max=1), [0.5] * 3)
    table = next(p for p in named(sections(run), "Classes").parts if isinstance(p, Table))
    assert table.rows[2] == ["class 2", None, None, None, None, 0]


def test_of_many_classes_the_most_confused_are_shown(tmp_path: Path) -> None:
    logits = torch.zeros(200, 100)
    labels = torch.arange(200) % 100
    logits[torch.arange(200), labels] = 5
    logits[7, 7], logits[7, 93] = 0, 9  # the only error: 7 taken for 93
    confusion = named(sections(evaluated(tmp_path, logits, labels, [0.5] * 100)), "Confusion")
    picture = chart(confusion, "Confusion matrix of the 40 most confused classes")
    assert {"class 7", "class 93"} <= set(picture.layout["xaxis"]["ticktext"])
    table = next(p for p in confusion.parts if isinstance(p, Table))
    assert table.rows == [["class 7", "class 93", 1, 0.5]]


def test_torn_arrays_are_refused_by_name(tmp_path: Path) -> None:
    run = evaluated(tmp_path, *kinds(3), [0.5] * 3)
    file = run / "evaluation" / "test" / "arrays.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be shown") as error:
        sections(run)
    assert error.value.where == str(run / "evaluation" / "test")


def test_a_figure_without_interval_is_shown_without_one(tmp_path: Path) -> None:
    """All right, so no resample differs: the value is there, the ends are not."""
    labels = torch.arange(200) % 3
    logits = torch.nn.functional.one_hot(labels, 3) * 9.0
    run = evaluated(tmp_path, logits, labels, [0.5] * 3)
    found = [one for section in sections(run) for one in section.headlines]
    ends = {one.name: (one.value, one.low, one.high) for one in found}
    assert ends["Test macro F1"] == (1.0, None, None)
    assert ends["Test accuracy"] == pytest.approx((1.0, 200 / 203.841459, 1.0), abs=1e-6)
