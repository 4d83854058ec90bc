"""What is chosen on validation, what is measured on the test part, and what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from renshu.cli.table import read_table
from renshu_tasks.image_classification import evaluation
from renshu_tasks.image_classification import module as parts
from renshu_tasks.image_classification.data import ImageData
from renshu_tasks.image_classification.module import ImageClassifier

pytestmark = pytest.mark.filterwarnings("ignore:.*not measured.*")


def half_trained(data: ImageData, **arguments: Any) -> ImageClassifier:
    """A network whose head was fitted a little: right often, and far too sure."""
    module = ImageClassifier(
        data.classes,
        channels=1,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        multi_label=data.multi_label,
        model={"width": 4},
        training={"ema_decay": 0.0, "tta": "none"} | arguments,
    )
    rows = torch.as_tensor(data.parts["train"])
    image = module.normalise(data.dataset("train").images[rows])
    optimizer = torch.optim.Adam(module.model.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        module.loss(module(image), data.labels[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        module.model.head.weight.mul_(4)
        module.model.head.bias.mul_(4)
    return module


@pytest.fixture
def data(digits: tuple) -> ImageData:
    images, labels = digits
    return ImageData.from_arrays(images[:400], labels[:400], test_share=0.3, val_share=0.3)


@pytest.fixture
def no_test_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any look at the test part fails."""
    original = ImageData.dataset

    def watched(self: ImageData, part: str) -> Any:
        assert part != "test", "the test part was read"
        return original(self, part)

    monkeypatch.setattr(ImageData, "dataset", watched)


@pytest.mark.usefixtures("no_test_rows")
def test_the_temperature_lowers_the_validation_loss_without_test_rows(data: ImageData) -> None:
    module = half_trained(data)
    outcome = evaluation.collect(module, data.val_dataloader())
    evaluation.calibrate(module, data)
    assert float(module.temperature) > 1.2
    before = F.cross_entropy(outcome.logits, outcome.labels)
    assert F.cross_entropy(outcome.logits / module.temperature, outcome.labels) < before


def test_calibration_can_be_switched_off(data: ImageData) -> None:
    module = half_trained(data, calibrate=False)
    evaluation.calibrate(module, data)
    assert float(module.temperature) == 1.0


@pytest.mark.usefixtures("no_test_rows")
def test_two_classes_get_the_threshold_of_the_best_f1_on_validation(digits: tuple) -> None:
    images, labels = digits
    names = ["eight" if y == "8" else "other" for y in labels[:600]]
    data = ImageData.from_arrays(images[:600], names, classes=["other", "eight"], val_share=0.4)
    module = half_trained(data)
    evaluation.calibrate(module, data)
    outcome = evaluation.collect(module, data.val_dataloader())
    scores = module.scale(outcome.logits)

    def f1(threshold: float) -> float:
        chosen, truth = scores[:, 1] >= threshold, outcome.labels == 1
        return float(2 * (chosen & truth).sum() / (chosen.sum() + truth.sum()))

    assert f1(float(module.thresholds[1])) == max(f1(t) for t in scores[:, 1].tolist())
    decided = module.decide(scores)
    assert torch.equal(decided, (scores[:, 1] >= module.thresholds[1]).long())


def test_a_threshold_can_be_given(digits: tuple) -> None:
    images, labels = digits
    names = [str(int(y) % 2) for y in labels[:200]]
    data = ImageData.from_arrays(images[:200], names)
    module = half_trained(data, threshold=0.9)
    evaluation.calibrate(module, data)
    assert module.decide(torch.tensor([[0.11, 0.89], [0.09, 0.91]])).tolist() == [0, 1]


def test_the_evaluation_writes_what_report_and_reader_need(data: ImageData, run_dir: Path) -> None:
    module = half_trained(data)
    parts.finish(module, data, run_dir)
    folder = run_dir / "evaluation" / "test"
    figures = json.loads((folder / "metrics.json").read_text())
    arrays = load_file(folder / "arrays.safetensors")
    count = len(data.parts["test"])
    assert arrays["probabilities"].shape == (count, 10) and arrays["labels"].shape == (count,)
    right = (arrays["probabilities"].argmax(1) == arrays["labels"]).float().mean()
    assert figures["accuracy"]["value"] == pytest.approx(float(right))
    assert figures["accuracy"]["low"] <= right <= figures["accuracy"]["high"]
    assert sum(map(sum, json.loads((folder / "confusion.json").read_text())["rows"])) == count
    rows = list(read_table(folder / "predictions.csv"))
    assert [row["id"] for row in rows] == data.split_ids["test"]
    assert [data.classes.index(row["label"]) for row in rows] == arrays["labels"].tolist()


def test_the_worst_pictures_have_the_highest_losses(data: ImageData, run_dir: Path) -> None:
    module = half_trained(data)
    evaluation.evaluate(module, data, "val", run_dir)
    folder = run_dir / "evaluation" / "val"
    worst = json.loads((folder / "worst.json").read_text())
    arrays = load_file(folder / "arrays.safetensors")
    losses = F.nll_loss(arrays["probabilities"].log(), arrays["labels"], reduction="none")
    assert len(worst) == evaluation.WORST
    assert [row["loss"] for row in worst] == pytest.approx(
        losses.sort(descending=True).values[: evaluation.WORST].tolist(), rel=1e-3
    )
    for row in worst:
        for name in (row["image"], row["overlay"]):
            assert min(_pixels(folder / "worst" / name).shape[:2]) >= 96
    place = data.split_ids["val"].index(worst[0]["id"])
    pixels = _pixels(folder / "worst" / worst[0]["image"])
    picture = data.sample("val", place)["image"][0]
    assert np.array_equal(pixels[6::12, 6::12], picture.numpy())


def _pixels(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


def test_an_id_cannot_become_a_formula(digits: tuple, run_dir: Path) -> None:
    # pains/security.md row 32
    images, labels = digits
    names = ["=1+1" if int(y) % 2 else "-x" for y in labels[:100]]
    data = ImageData.from_arrays(images[:100], names)
    evaluation.evaluate(half_trained(data), data, "val", run_dir)
    file = run_dir / "evaluation" / "val" / "predictions.csv"
    for line in file.read_text().splitlines():
        assert not any(cell.startswith(("=", "-", "+", "@")) for cell in line.split(","))
    assert {row["label"] for row in read_table(file)} == {"=1+1", "-x"}


def test_groups_widen_the_intervals(digits: tuple, run_dir: Path) -> None:
    images, labels = digits
    groups = [str(i // 20) for i in range(400)]
    data = ImageData.from_arrays(images[:400], labels[:400], groups=groups, test_share=0.4)
    module = half_trained(data)
    figures = evaluation.evaluate(module, data, "test", run_dir)["accuracy"]
    data.records.groups = None
    single = evaluation.evaluate(module, data, "test", run_dir)["accuracy"]
    assert figures["value"] == single["value"]
    assert (figures["low"], figures["high"]) != (single["low"], single["high"])


def test_collecting_puts_the_mode_back_and_changes_no_weight(data: ImageData) -> None:
    module = half_trained(data).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    evaluation.collect(module, data.val_dataloader())
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_without_a_test_part_the_validation_part_is_measured(digits: tuple, run_dir: Path) -> None:
    images, labels = digits
    data = ImageData.from_arrays(images[:200], labels[:200], test_share=0.0)
    parts.finish(half_trained(data), data, run_dir)
    assert [folder.name for folder in (run_dir / "evaluation").iterdir()] == ["val"]
