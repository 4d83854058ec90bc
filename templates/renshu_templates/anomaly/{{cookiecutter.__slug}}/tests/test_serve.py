"""The service gives a verdict for each point, and refuses what is none."""

from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.__package }} import serve
from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.train import train


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """A service of a model of a wave of two channels."""
    monkeypatch.chdir(tmp_path)
    angle = np.arange(600) / 5
    wave = np.stack([np.sin(angle), np.cos(angle)], 1)
    np.savetxt("wave.csv", wave, header="a,b", comments="", delimiter=",")
    network = ["--model.name=cnn", "--model.window=20", "--trainer.max_epochs=1"]
    run = train(read_config(["--data.path=wave.csv", "--data.train_end=500", *network])).run_dir
    monkeypatch.setenv("MODEL", f"{run}/model")
    serve.model.cache_clear()
    return TestClient(serve.app)


def test_points_get_verdicts(client: TestClient) -> None:
    points = [[0.0, 1.0]] * 30 + [[50.0, -50.0]]
    verdicts = client.post("/predict", json={"points": points}).json()
    assert len(verdicts) == 31
    assert verdicts[-1]["alarm"]
    assert client.get("/health").json() == {"channels": ["a", "b"]}


@pytest.mark.parametrize("points", [[], [[1.0]], [["x", 1]], "points"])
def test_what_is_no_point_is_refused(client: TestClient, points: object) -> None:
    assert client.post("/predict", json={"points": points}).status_code == 422
