"""The service answers with the classes of the model, and refuses what is no row."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from renshu import Trainer

from {{ cookiecutter.__package }} import serve
from {{ cookiecutter.__package }}.data import DataOptions, TableData
from {{ cookiecutter.__package }}.model import ModelOptions, TrainingOptions, build

DATA = TableData(DataOptions())


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A service of a model that has learned nothing yet."""
    monkeypatch.chdir(tmp_path)
    model = build(DATA, ModelOptions(), TrainingOptions())
    trainer = Trainer(max_steps=1, accelerator="cpu", enable_checkpointing=False)
    trainer.fit(model, datamodule=DATA)
    trainer.save_checkpoint(tmp_path / "model", weights_only=True)
    monkeypatch.setenv("MODEL", str(tmp_path / "model"))
    serve.model.cache_clear()
    return TestClient(serve.app)


def test_rows_get_probabilities(client: TestClient) -> None:
    answers = client.post("/predict", json={"rows": DATA.rows[:3].tolist()}).json()
    assert [sum(answer.values()) for answer in answers] == pytest.approx([1, 1, 1])
    assert list(answers[0]) == client.get("/health").json()["classes"]


@pytest.mark.parametrize("rows", [[], [[1.0]], [["x"]], "rows"])
def test_what_is_no_row_is_refused(client: TestClient, rows: object) -> None:
    assert client.post("/predict", json={"rows": rows}).status_code == 422
