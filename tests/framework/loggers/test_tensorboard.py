"""Event files that TensorBoard's own reader reads: each step once, also after a kill."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from renshu.errors import ConfigError, RunError
from renshu.loggers import TensorBoardLogger


def opened(folder: Path, *, resume: bool = False) -> TensorBoardLogger:
    logger = TensorBoardLogger()
    logger.open(folder, resume=resume)
    return logger


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return found


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events(folder).Scalars(tag)]


def test_scalars_are_read_back(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    for step in range(5):
        logger.log_metrics({"loss": step / 4, "epoch": 0}, step)
    logger.finalize("success")
    assert scalars(tmp_path, "loss") == [(step, step / 4) for step in range(5)]
    assert scalars(tmp_path, "epoch") == [(step, 0.0) for step in range(5)]


def test_after_a_resume_each_tag_has_each_step_once(tmp_path: Path) -> None:
    logger = opened(tmp_path)  # pains/trainer.md row 29
    for step in range(6):
        logger.log_metrics({"loss": float(step)}, step)
    logger.save()
    # killed here: the writer is neither closed nor told
    again = opened(tmp_path, resume=True)
    for step in range(4, 8):
        again.log_metrics({"loss": float(step)}, step)
        again.log_metrics({"val_loss": -float(step)}, step)
    again.finalize("success")
    assert scalars(tmp_path, "loss") == [(step, float(step)) for step in range(8)]
    assert scalars(tmp_path, "val_loss") == [(step, -float(step)) for step in range(4, 8)]


def test_a_fresh_start_does_not_mix_with_an_older_one(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        logger = opened(tmp_path)
        logger.log_metrics({"loss": value}, 0)
        logger.finalize("success")
    assert scalars(tmp_path, "loss") == [(0, 2.0)]
    assert (tmp_path / "tensorboard-1").is_dir()


def test_a_torn_event_file_does_not_stop_a_resume(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    for step in range(3):
        logger.log_metrics({"loss": float(step)}, step)
    logger.finalize("success")
    [path] = (tmp_path / "tensorboard").glob("events.*")
    path.write_bytes(path.read_bytes()[:-7])
    again = opened(tmp_path, resume=True)
    for step in range(4):
        again.log_metrics({"loss": float(step)}, step)
    again.finalize("success")
    assert scalars(tmp_path, "loss") == [(step, float(step)) for step in range(4)]


def test_what_is_logged_after_the_end_is_kept(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    logger.log_metrics({"loss": 1.0}, 0)
    logger.finalize("success")
    logger.log_metrics({"test_acc": 0.5}, 0)
    assert scalars(tmp_path, "test_acc") == [(0, 0.5)]


def test_hyperparameters_and_pictures(tmp_path: Path) -> None:
    logger = opened(tmp_path)
    logger.log_hyperparams({"lr": 0.1, "layers": [1, 2], "name": "x"})
    logger.experiment.add_image("picture", torch.zeros(3, 4, 4))
    logger.finalize("success")
    tags: Any = events(tmp_path).Tags()
    assert tags["images"] == ["picture"]
    summary = events(tmp_path).SummaryMetadata("_hparams_/session_start_info")
    assert b"lr" in summary.plugin_data.content
    again = opened(tmp_path, resume=True)
    again.log_hyperparams({"lr": 0.1})
    again.log_metrics({"loss": 1.0}, 0)
    again.finalize("success")


def test_without_the_package_the_install_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ConfigError, match=r'pip install "renshu\[tensorboard\]"'):
        TensorBoardLogger()


def test_the_writer_needs_a_fit() -> None:
    logger = TensorBoardLogger()
    logger.finalize("failed")
    with pytest.raises(RunError, match="not open"):
        logger.log_metrics({"loss": 1.0}, 0)
