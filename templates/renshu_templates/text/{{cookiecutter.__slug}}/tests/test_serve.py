"""The service labels texts, and refuses what is none."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from {{ cookiecutter.__package }} import serve
from {{ cookiecutter.__package }}.config import read_config
from {{ cookiecutter.__package }}.train import train


@pytest.fixture
def client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path, reviews: Path
) -> TestClient:
    """A service of a model that has learned next to nothing."""
    monkeypatch.chdir(tmp_path)
    flags = [f"--model.name={tiny}", f"--data.path={reviews}", "--trainer.max_epochs=1"]
    run = train(read_config([*flags, "--trainer.accelerator=cpu"])).run_dir
    monkeypatch.setenv("MODEL", f"{run}/model")
    serve.model.cache_clear()
    return TestClient(serve.app)


def test_texts_get_labels(client: TestClient) -> None:
    texts = ["the film was good", "a bad day", "the film was good"]
    answers = client.post("/predict", json={"texts": texts}).json()
    assert [answer["predicted"] in ("good", "bad") for answer in answers] == [True] * 3
    assert answers[0] == answers[2]
    assert client.get("/health").json() == {"classes": ["bad", "good"]}


@pytest.mark.parametrize("texts", [[], [""], [3], "a text"])
def test_what_is_no_text_is_refused(client: TestClient, texts: object) -> None:
    assert client.post("/predict", json={"texts": texts}).status_code == 422
