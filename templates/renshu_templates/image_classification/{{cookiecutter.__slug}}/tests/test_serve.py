"""The service answers with the classes of the model, and refuses what is no picture."""

import io
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from renshu import Trainer

from {{ cookiecutter.__package }} import serve
from {{ cookiecutter.__package }}.data import DataOptions, load
from {{ cookiecutter.__package }}.model import ModelOptions, TrainingOptions, build


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A service of a model that has learned nothing yet."""
    monkeypatch.chdir(tmp_path)
    data = load(DataOptions())
    model = build(data, ModelOptions(width=4), TrainingOptions())
    trainer = Trainer(max_steps=1, accelerator="cpu", enable_checkpointing=False)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model", weights_only=True)
    monkeypatch.setenv("MODEL", str(tmp_path / "model"))
    serve.model.cache_clear()
    return TestClient(serve.app)


def test_a_picture_gets_a_class_and_probabilities(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8), 128).save(file, "PNG")
    answer = client.post("/predict", content=file.getvalue()).json()
    assert answer["class"] in client.get("/health").json()["classes"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_what_is_no_picture_is_refused(client: TestClient) -> None:
    assert client.post("/predict", content=b"not a picture").status_code == 422
    assert client.post("/predict", content=bytes(serve.LARGEST + 1)).status_code == 413
