"""Prediction of files: one row each, in order, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from renshu.errors import DataError
from renshu_tasks.image_classification.module import ImageClassifier
from renshu_tasks.image_classification.options import DataOptions, ImageClassificationOptions
from renshu_tasks.image_classification.predict import predict


def classifier(classes: int = 10, **arguments: object) -> ImageClassifier:
    names = [str(k) for k in range(classes)]
    shape: dict = {"channels": 1, "image_size": (8, 8), "mean": [0.3], "std": [0.4]}
    module = ImageClassifier(names, model={"width": 4}, **shape, **arguments)
    return module.eval()


def options(**data: object) -> ImageClassificationOptions:
    return ImageClassificationOptions(data=DataOptions(**data))


@pytest.fixture
def files(write_digits: Callable[..., Path], tmp_path: Path) -> list[Path]:
    return sorted(write_digits(tmp_path / "digits", 0, 10).rglob("*.png"), reverse=True)


def test_there_is_one_row_a_file_in_order_whatever_the_batch(files: list[Path]) -> None:
    module = classifier()
    one = list(predict(module, files, options(batch_size=1)))
    four = list(predict(module, files, options(batch_size=4)))
    assert [row["file"] for row in four] == [str(file) for file in files]
    for a, b in zip(one, four, strict=True):
        assert a["predicted"] == b["predicted"]
        assert a["confidence"] == pytest.approx(b["confidence"], abs=2e-6)


def test_a_row_holds_the_probabilities_of_the_decision(files: list[Path]) -> None:
    for row in predict(classifier(), files, options()):
        scores = {name[2:]: value for name, value in row.items() if name.startswith("p_")}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-4)
        assert row["predicted"] == max(scores, key=lambda name: scores[name])
        assert row["confidence"] == scores[row["predicted"]]


def test_a_bad_file_is_an_error_or_a_row_that_says_so(files: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(files[0].read_bytes()[:40])
    mixed = [files[0], bad, files[1]]
    with pytest.raises(DataError, match=r"bad\.png"):
        list(predict(classifier(), mixed, options()))
    rows = list(predict(classifier(), mixed, options(on_bad_image="skip")))
    assert [bool(row["error"]) for row in rows] == [False, True, False]
    assert rows[1]["predicted"] == "" and rows[1].keys() == rows[0].keys()
    assert rows[2]["file"] == str(files[1])
    only = list(predict(classifier(), [bad], options(on_bad_image="skip")))
    assert len(only) == 1 and only[0]["error"]


def test_files_are_read_no_further_than_a_batch_ahead(files: list[Path]) -> None:
    taken = []

    def endless() -> Iterator[Path]:
        while True:
            taken.append(1)
            yield files[0]

    rows = predict(classifier(), endless(), options(batch_size=5))
    for _ in range(11):
        next(rows)
    assert len(taken) == 15


def test_several_labels_are_joined_and_each_has_its_threshold(files: list[Path]) -> None:
    module = classifier(3, multi_label=True)
    module.thresholds.copy_(torch.tensor([0.0, 1.1, 0.0]))
    row = next(predict(module, files, options()))
    assert row["predicted"] == "0|2"


def test_views_are_averaged_and_change_the_answer_little(files: list[Path]) -> None:
    plain = classifier(training={"tta": "none"})
    views = classifier(training={"tta": "affine"})
    views.load_state_dict(plain.state_dict())
    image = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        turned = [plain.normalise(_view(image, affine)) for affine in views.views]
        maps = [plain.probabilities(view) for view in turned]
        expected = torch.stack(maps).mean(0)
        found = views.probabilities(views.normalise(image))
    assert len(maps) == 7
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(_view(image, views.views[0]), image, atol=1e-5)


def _view(image: torch.Tensor, affine: torch.Tensor) -> torch.Tensor:
    """Seen another way, black outside, as in training."""
    grid = torch.nn.functional.affine_grid(
        affine.expand(len(image), 2, 3), list(image.shape), align_corners=False
    )
    return torch.nn.functional.grid_sample(image, grid, align_corners=False)
