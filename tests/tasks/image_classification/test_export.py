"""`renshu export RUN --to onnx` with trained classifiers of pictures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from renshu.cli.export_gate import export
from renshu.cli.main import main
from renshu.errors import RunError
from renshu_tasks.image_classification.data import ImageData
from renshu_tasks.image_classification.export import UNSEEN, to_onnx
from renshu_tasks.image_classification.module import ImageClassifier

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def classifier(data: ImageData, **more: object) -> ImageClassifier:
    """Untrained, with decisions that an export has to keep."""
    torch.manual_seed(0)
    module = ImageClassifier(
        data.classes, channels=1, image_size=data.image_size, mean=data.mean, std=data.std, **more
    ).eval()
    module.temperature.fill_(1.7)
    return module


@pytest.fixture
def data(digits: tuple) -> ImageData:
    images, labels = digits
    return ImageData.from_arrays(images[:300], labels[:300], num_workers=0)


def run_onnx(folder: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


@pytest.mark.slow
def test_a_trained_run_is_exported_by_one_command(
    write_digits: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = write_digits(tmp_path / "pictures", 0, 200)
    train = ["train", "image_classification", "--data.path", str(pictures), "--trainer.run", "a"]
    assert main([*train, "--trainer.max_epochs", "1", "--trainer.seed", "1"]) == 0
    assert main(["export", "a", "--to", "onnx"]) == 0
    folder = Path("runs/a/export/onnx")
    record = json.loads((folder / "export.json").read_text())
    assert record["largest_difference"] <= 1e-5
    evaluated = json.loads(Path("runs/a/evaluation/test/metrics.json").read_text())
    accuracy = evaluated["accuracy"]["value"]
    assert record["metric"]["accuracy"] == [pytest.approx(accuracy), pytest.approx(accuracy)]
    assert "in a fresh process" in capsys.readouterr().out

    assert main(["export", "a", "--to", "onnx"]) == 2
    assert "there is something already" in capsys.readouterr().err
    assert main(["export", "a", "--to", "onxn", "--out", "b"]) == 2
    assert "did you mean 'onnx'?" in capsys.readouterr().err


ONE_VIEW = {"training": {"tta": "none"}}


# pains/text_serving.md row 13
@pytest.mark.parametrize(
    "more",
    [
        ONE_VIEW,
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"multi_label": True}, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_pictures(data: ImageData, more: dict, tmp_path: Path) -> None:
    module = classifier(data, **more)
    if more.get("multi_label"):
        data.labels = torch.nn.functional.one_hot(data.labels, 10).float()
    export(to_onnx, module, data, tmp_path / "onnx", {})
    for size in (2, 5, *UNSEEN):
        image = torch.randint(256, (size, 1, 8, 8), dtype=torch.uint8)
        found = run_onnx(tmp_path / "onnx", image.numpy())
        with torch.no_grad():
            expected = module.probabilities(module.normalise(image))
        assert np.abs(found["probabilities"] - expected.numpy()).max() < 1e-5


def test_the_folder_holds_what_decides(data: ImageData, tmp_path: Path) -> None:
    export(to_onnx, classifier(data, **ONE_VIEW), data, tmp_path / "onnx", {})
    about = json.loads((tmp_path / "onnx/model.json").read_text())
    assert about["classes"] == data.classes
    assert about["temperature"] == pytest.approx(1.7)
    assert about["input"] == {"name": "image", "dtype": "uint8", "shape": ["batch", 1, 8, 8]}
    stored = load_file(tmp_path / "onnx/check/batch-3.safetensors")
    assert stored["input.image"].shape == (3, 1, 8, 8)


# pains/text_serving.md row 12
def test_other_weights_are_refused(data: ImageData, tmp_path: Path) -> None:
    module = classifier(data, **ONE_VIEW)

    def write(*given: object) -> object:
        exported = to_onnx(*given)
        with torch.no_grad():
            next(module.model.parameters()).add_(0.01)
        return exported

    with pytest.raises(RunError, match="so it is not kept"):
        export(write, module, data, tmp_path / "onnx", {})
    assert list(tmp_path.iterdir()) == []
