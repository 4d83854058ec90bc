"""MLflow: a server on loopback with SQLite, all read back through its own client."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import killing
import small_models
from renshu import Trainer
from renshu.callbacks import ModelCheckpoint
from renshu.checkpoints import read_weights
from renshu.errors import ConfigError, RunError
from renshu.loggers import MLFlowLogger

MlflowClient = pytest.importorskip("mlflow").MlflowClient


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an MLflow server of this test session."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def opened(folder: Path, *, resume: bool = False, **options: Any) -> MLFlowLogger:
    logger = MLFlowLogger(**options)
    logger.open(folder, resume=resume)
    return logger


def history(client: Any, run_id: str) -> list[tuple[str, int, float]]:
    """Every value of a run, read page by page."""
    tags = client.get_run(run_id).data.metrics
    found = [(m.key, m.step, m.value) for t in tags for m in client.get_metric_history(run_id, t)]
    return sorted(found)


@pytest.mark.slow
def test_a_fit_is_read_back_through_the_client(tmp_path: Path, server: str) -> None:
    # capabilities F
    logger = MLFlowLogger("digits", "first", server, tags={"team": "a"}, log_model=True)
    saver = ModelCheckpoint(monitor="val_loss", save_top_k=1)
    trainer = small_models.trainer(
        logger=["csv", logger], callbacks=[saver], enable_checkpointing=None, max_epochs=2,
        log_every_n_steps=5,
    )  # fmt: skip
    module = small_models.Classifier(lr=0.05)
    trainer.fit(module, small_models.loader(), small_models.loader(32))
    client, run_id = MlflowClient(server), logger.run_id or ""
    run = client.get_run(run_id)
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.params == {"lr": "0.05", "seed": "0"}
    assert run.data.tags["team"] == "a"
    values = history(client, run_id)
    assert [s for tag, s, _ in values if tag == "train_loss"] == [4, 9, 14, 19]
    lines = (trainer.run_dir / "metrics.csv").read_text().splitlines()  # type: ignore[operator]
    header, *rows = [line.split(",") for line in lines]
    table = [dict(zip(header, row, strict=True)) for row in rows]
    written = [
        (t, int(r["step"]), float(v)) for r in table for t, v in r.items() if v and t != "step"
    ]
    assert values == sorted(written)

    name = Path(saver.best_model_path).name
    assert logger.register_model(saver.best_model_path, "digits-model") == "1"
    assert logger.register_model(saver.best_model_path, "digits-model") == "2"
    assert [f.path for f in client.list_artifacts(run_id)] == [name]
    [version] = client.search_model_versions("name='digits-model' and version_number='2'")
    assert version.run_id == run_id
    place = client.download_artifacts(run_id, name, str(tmp_path))
    kept = read_weights(Path(place))
    assert all(torch.equal(kept[n], w) for n, w in read_weights(saver.best_model_path).items())


@pytest.mark.slow
@pytest.mark.parametrize("synchronous", [None, True])
def test_after_a_kill_each_step_is_on_the_server_once(
    server: str, synchronous: bool | None
) -> None:
    # capabilities F; pains/trainer.md row 29
    save, kill = 7, 13

    def fit(**given: Any) -> str:
        logger = MLFlowLogger("kills", tracking_uri=server, synchronous=synchronous)
        return killing.fit(
            logger=logger, module=killing.Validated, log_every_n_steps=1,
            val=lambda: killing.DataLoader(killing.Noisy(), batch_size=8),
            validate_every="3 steps", result=lambda *_: logger.run_id, **given,
        )  # fmt: skip

    client = MlflowClient(server)
    killers = [killing.SaveThenKill(save, kill - save)]
    killing.in_child(lambda: fit(callbacks=lambda: killers, run="cut"), killed=True)
    run_id = next(Path("runs/cut").glob("MLFlowLogger-*.id")).read_text()
    first = {step for _, step, _ in history(client, run_id)}
    assert first >= set(range(save - 1))
    assert (max(first) > save) == bool(synchronous)  # sent at once: ahead of the checkpoint
    assert client.get_run(run_id).info.status == "RUNNING"
    last = Path("runs/cut/checkpoints") / f"at={save}"
    assert killing.in_child(lambda: fit(run="cut", resume=last)) == run_id
    whole = history(client, killing.in_child(lambda: fit(run="whole")))
    assert history(client, run_id) == whole
    assert max(Counter((tag, step) for tag, step, _ in whole).values()) == 1
    assert {step for tag, step, _ in whole if tag == "loss_step"} == set(range(24))
    assert client.get_run(run_id).info.status == "FINISHED"


@pytest.mark.slow
def test_pictures_files_and_names(tmp_path: Path, server: str, capsys: Any) -> None:
    # capabilities F
    from matplotlib.figure import Figure

    logger = opened(tmp_path, tracking_uri=server, prefix="a")
    picture = np.zeros((5, 7, 3), np.uint8)
    picture[1, 2] = (255, 128, 0)
    logger.log_image("pic", [picture, torch.ones(4, 4)], step=12)
    figure = Figure(figsize=(2, 1), dpi=50)
    figure.subplots().plot([1, 2])
    logger.log_figure("fig", figure, step=12)
    (tmp_path / "notes.txt").write_text("x")
    logger.log_artifact(tmp_path / "notes.txt")
    logger.log_artifact(tmp_path / "notes.txt", "texts")
    logger.log_hyperparams({"lr": 0.1, "net": {"width": 3, "act": "relu"}})
    logger.log_hyperparams({"lr": 0.2})  # a parameter of MLflow never changes
    for step in range(1500):  # more than one batch
        logger.log_metrics({"f1@0.5": 1.0, "loss": float(step)}, step)
    logger.finalize("failed")
    logger.log_metrics({"test_loss": 0.5}, 1500)
    client, run_id = MlflowClient(server), logger.run_id or ""
    run = client.get_run(run_id)
    assert run.info.status == "FAILED"
    assert run.data.params == {"lr": "0.1", "net/width": "3", "net/act": "relu"}
    assert run.data.metrics == {"a-f1_0.5": 1.0, "a-loss": 1499.0, "a-test_loss": 0.5}
    assert [m.step for m in client.get_metric_history(run_id, "a-loss")] == list(range(1500))
    assert capsys.readouterr().err.count("a-f1@0.5") == 1
    assert [f.path for f in client.list_artifacts(run_id)] == ["images", "notes.txt", "texts"]
    place = Path(client.download_artifacts(run_id, "images", str(tmp_path)))
    shown = np.asarray(Image.open(place / "a-pic" / "000012-0.png").convert("RGB"))
    assert np.array_equal(shown, picture)
    with Image.open(place / "a-fig" / "000012-0.png") as found:
        assert found.size == (100, 50)
    assert (place / "a-pic" / "000012-1.png").exists()


@pytest.mark.slow
def test_a_resume_goes_on_where_the_server_is(tmp_path: Path, server: str) -> None:
    options: dict[str, Any] = {"tracking_uri": server, "synchronous": True}
    logger = opened(tmp_path, **options)
    for step in range(6):
        logger.log_metrics({"loss": float(step), "f1@0.5": 1.0}, step)
    again = opened(tmp_path, resume=True, **options)
    assert again.run_id == logger.run_id
    for step in range(4, 8):
        again.log_metrics({"loss": float(step), "f1@0.5": 1.0, "val_loss": -float(step)}, step)
    again.finalize("success")
    values = history(MlflowClient(server), logger.run_id or "")
    assert [(s, v) for tag, s, v in values if tag == "loss"] == [(s, float(s)) for s in range(8)]
    assert [s for tag, s, _ in values if tag == "f1_0.5"] == [*range(8)]
    assert [s for tag, s, _ in values if tag == "val_loss"] == [4, 5, 6, 7]
    fresh = opened(tmp_path, **options)
    assert fresh.run_id != logger.run_id
    fresh.finalize("success")


# MLflow 3.17 declares its tables in a way that SQLAlchemy 2.1 warns of.
@pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")
def test_without_a_server_a_database_beside_the_runs(tmp_path: Path) -> None:  # capabilities F
    (tmp_path / "run").mkdir()
    logger = opened(tmp_path / "run", experiment_name="mine")
    logger.log_metrics({"loss": 0.5}, 3)
    logger.log_image("pic", [np.zeros((2, 2), np.uint8)])
    logger.finalize("success")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.data.metrics) == ("run", {"loss": 0.5})
    assert list((tmp_path / "mlartifacts" / "mine").rglob("000003-0.png"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mlartifacts", "mlflow.db", "run"]


def test_what_cannot_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(Trainer(logger="mlflow").loggers[0]) is MLFlowLogger
    with pytest.raises(RunError, match="not open"):
        _ = MLFlowLogger().experiment
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri, begin = f"http://127.0.0.1:{closed.getsockname()[1]}", time.monotonic()
        with pytest.raises(ConfigError, match="no MLflow server answers"):
            opened(tmp_path, tracking_uri=uri)
    assert time.monotonic() - begin < 15
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r'pip install "renshu\[mlflow\]"'):
        MLFlowLogger()
