"""Weights & Biases offline: its own files read back, with each step once also after a kill."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import killing
from renshu import Trainer
from renshu.callbacks import Callback
from renshu.errors import ConfigError, RunError
from renshu.loggers import WandbLogger
from renshu.loggers.wandb import STEP
from renshu.loggers.wandb_file import WandbFile

wandb = pytest.importorskip("wandb")

# Every use of W&B is in a forked child: its service is then that child's and ends with it.


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(Path.cwd() / name))


def opened(folder: Path, *, resume: bool = False, **options: Any) -> WandbLogger:
    logger = WandbLogger(**options)
    logger.open(folder, resume=resume)
    return logger


def in_child(work: Callable[[], Any]) -> Any:
    def run() -> Any:
        found = work()
        wandb.finish()
        return found

    return killing.in_child(run)


def rows(run: Path) -> list[dict[str, Any]]:
    """Every record of all directories that W&B made below a run's folder."""
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    return [row for path in files for row in WandbFile(path).rows()]


def values(run: Path) -> list[tuple[str, int, float]]:
    found = [(tag, row[STEP], v) for row in rows(run) for tag, v in row.items() if tag != STEP]
    return sorted(found, key=lambda item: item[:2])


def test_values_hyperparameters_and_media_are_read_back(tmp_path: Path) -> None:  # capabilities F
    picture = np.zeros((5, 7, 3), np.uint8)
    picture[1, 2] = (255, 128, 0)

    def work() -> None:
        from matplotlib.figure import Figure

        logger = opened(tmp_path, prefix="a")
        logger.log_hyperparams({"lr": 0.1, "net": {"layers": [1, 2]}})
        for step in range(3):
            logger.log_metrics({"loss": 1 / (step + 1), "odd": float("nan")}, step)
        logger.log_image("pic", [picture, torch.ones(1, 4, 4)], step=2, caption=["x", "y"])
        figure = Figure(figsize=(2, 1), dpi=50)
        figure.subplots().plot([1, 2])
        logger.log_figure("fig", figure)
        logger.log_table("table", columns=["a", "b"], data=[[1, "x"]])
        logger.log_text("text", columns=["t"], data=[["hello"]])
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "weights.txt").write_text("1 2 3")
        logger.log_artifact(folder)
        logger.watch(torch.nn.Linear(2, 2))
        logger.finalize("success")
        logger.log_metrics({"test_loss": 0.5}, 3)

    in_child(work)
    found = rows(tmp_path)
    assert [row["a-loss"] for row in found if "a-loss" in row] == [1.0, 0.5, 1 / 3]
    assert np.isnan([row["a-odd"] for row in found if "a-odd" in row]).tolist() == [True] * 3
    assert {tag: row[STEP] for row in found for tag in row if tag not in ("a-loss", "a-odd")} == {
        STEP: 3, "a-pic": 2, "a-fig": 2, "a-table": 2, "a-text": 2, "a-test_loss": 3,
    }  # fmt: skip
    [home] = tmp_path.glob("wandb/offline-run-*")
    [shown] = [row["a-pic"] for row in found if "a-pic" in row]
    assert shown["captions"] == ["x", "y"]
    first, second = (Image.open(home / "files" / name) for name in shown["filenames"])
    assert np.array_equal(np.asarray(first.convert("RGB")), picture)
    assert np.asarray(second.convert("L")).tolist() == [[255] * 4] * 4
    [figure] = [row["a-fig"] for row in found if "a-fig" in row]
    assert (figure["width"], figure["height"]) == (100, 50)
    [table] = [row["a-table"] for row in found if "a-table" in row]
    assert json.loads((home / "files" / table["path"]).read_text())["data"] == [[1, "x"]]
    [path] = home.glob("run-*.wandb")
    items = [i for record in WandbFile(path).records() for i in record.config.update]
    config = {item.key: json.loads(item.value_json) for item in items if item.key}
    assert (config["lr"], config["net"]) == (0.1, {"layers": [1, 2]})


class Pause(Callback):
    """Gives W&B the time to write what came after the checkpoint."""

    def __init__(self, batches: int):
        self.batches = batches

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.progress.batches == self.batches:
            time.sleep(0.5)


OPTIONS: dict[str, Any] = {
    "log_every_n_steps": 1, "validate_every": "3 steps", "logger": ["csv", "wandb"],
    "module": killing.Validated,
    "val": lambda: killing.DataLoader(killing.Noisy(), batch_size=8),
}  # fmt: skip


@pytest.mark.parametrize("paused", [pytest.param(False, marks=pytest.mark.slow), True])
def test_after_a_kill_two_directories_hold_each_step_once(paused: bool) -> None:
    # capabilities F; pains/trainer.md row 29
    save, kill = 7, 13
    watch = [Pause(kill)] if paused else []
    killers = [*watch, killing.SaveThenKill(save, kill - save)]
    killing.in_child(
        lambda: killing.fit(callbacks=lambda: killers, run="cut", **OPTIONS), killed=True
    )
    cut = Path("runs/cut")
    first = {row[STEP] for row in rows(cut)}
    assert first >= set(range(save - 1))  # the save is one hook before the log of its step
    if paused:  # what was logged after the checkpoint is there, and must not come twice
        assert max(first) >= save + 3
    last = cut / "checkpoints" / f"at={save}"
    in_child(lambda: killing.fit(run="cut", resume=last, **OPTIONS))
    in_child(lambda: killing.fit(run="whole", **OPTIONS))
    assert len(list(cut.glob("wandb/offline-run-*"))) == 2
    assert len({path.name for path in cut.glob("wandb/offline-run-*/run-*.wandb")}) == 1
    whole = values(Path("runs/whole"))
    assert values(cut) == whole
    assert max(Counter((tag, step) for tag, step, _ in whole).values()) == 1
    assert {step for tag, step, _ in whole if tag == "loss_step"} == set(range(24))


def test_a_torn_end_is_read_up_to_the_tear_and_later_on(tmp_path: Path) -> None:
    def work() -> None:
        logger = opened(tmp_path)
        for step in range(3000):  # several blocks of 32 KiB
            logger.log_metrics({"loss": float(step)}, step)
        logger.save()

    in_child(work)
    [path] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    data, torn = path.read_bytes(), tmp_path / "torn.wandb"
    assert len(data) > 5 * 32768
    torn.write_bytes(data[: len(data) // 2])
    file = WandbFile(torn)
    before = [row["loss"] for row in file.rows()]
    torn.write_bytes(data)
    assert 1000 < len(before) < 2000
    assert before + [row["loss"] for row in file.rows()] == [float(step) for step in range(3000)]
    broken = bytearray(data)
    broken[len(data) // 2] ^= 1
    torn.write_bytes(broken)
    assert [row["loss"] for row in WandbFile(torn).rows()] == pytest.approx(before, rel=0)


def test_a_resume_online_sends_what_the_server_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Api:
        """A server that got all up to step 1."""

        def run(self, path: str) -> Any:
            return self

        def scan_history(self) -> list[dict[str, Any]]:
            return [{"loss": float(step), STEP: step, "_step": step} for step in range(2)]

    def work() -> None:
        logger = opened(tmp_path)
        for step in range(4):
            logger.log_metrics({"loss": float(step)}, step)
        logger.finalize("success")
        time.sleep(1.1)  # W&B names its directories by the second
        monkeypatch.setattr(wandb, "Api", Api)
        monkeypatch.setattr(wandb.Run, "offline", False)
        again = opened(tmp_path, resume=True)
        again.log_metrics({"loss": 3.0}, 3)
        again.log_metrics({"loss": 4.0}, 4)
        again.save()

    in_child(work)
    newest = max(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert [row["loss"] for row in WandbFile(newest).rows()] == [2.0, 3.0, 4.0]


def test_the_best_checkpoint_becomes_an_artifact(tmp_path: Path) -> None:  # capabilities F
    def work() -> str:
        logger = WandbLogger(log_model=True)
        saver = killing.ModelCheckpoint(monitor="loss_epoch", save_top_k=1)
        killing.fit(logger=logger, run="r", max_epochs=2, callbacks=lambda: [saver])
        logger.save()
        return logger.experiment.id

    run_id = in_child(work)
    [path] = Path("runs/r").glob("wandb/offline-run-*/run-*.wandb")
    found = [r.request.log_artifact.artifact for r in WandbFile(path).records()]
    found += [r.artifact for r in WandbFile(path).records()]
    [artifact] = [a for a in found if a.name]
    assert (artifact.type, artifact.name) == ("model", f"model-{run_id}")
    files = {entry.path for entry in artifact.manifest.contents}
    assert {"manifest.json", "model.safetensors"} <= files


def test_a_second_fit_in_the_process_has_a_run_of_its_own(tmp_path: Path) -> None:
    def work() -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            logger = opened(tmp_path / name)
            logger.log_metrics({name: 1.0}, 0)
            logger.finalize("success")

    in_child(work)
    assert rows(tmp_path / "one") == [{"one": 1, STEP: 0}]
    assert rows(tmp_path / "two") == [{"two": 1, STEP: 0}]


def test_by_name_and_several_at_once() -> None:  # capabilities F
    trainer = Trainer(logger=["csv", "wandb"])
    assert [type(logger).__name__ for logger in trainer.loggers] == ["CSVLogger", "WandbLogger"]


def test_what_cannot_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="log_model needs the server"):
        WandbLogger(offline=True, log_model=True)
    with pytest.raises(RunError, match="not open"):
        WandbLogger().log_metrics({"loss": 1.0}, 0)
    (tmp_path / "wandb").mkdir()  # what W&B leaves in the working directory is no package
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb")
    with pytest.raises(ConfigError, match=r'pip install "renshu\[wandb\]"'):
        WandbLogger()


def test_without_a_key_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def work() -> str:
        try:
            opened(tmp_path)
        except ConfigError as error:
            return str(error)
        return ""

    assert "WandbLogger(offline=True)" in in_child(work)
