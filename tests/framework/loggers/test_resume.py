"""A real fit that dies without warning and is resumed logs what the uninterrupted one logs."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tiny
from renshu.callbacks import LearningRateMonitor, ModelCheckpoint

OPTIONS: dict[str, Any] = {
    "max_epochs": 5,
    "log_every_n_steps": 2,
    "validate_every": "3 steps",
    "logger": ["csv", "tensorboard"],
}


class Dies(tiny.Tiny):
    """Ends its process before the given batch of the fit, without closing or flushing anything."""

    def __init__(self, at: int | None) -> None:
        super().__init__()
        self.at = at

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if self.trainer.global_step == self.at:
            os._exit(9)


def fit(folder: Path, at: int | None) -> None:
    callbacks = [LearningRateMonitor(), ModelCheckpoint(monitor="val_loss", every="4 steps")]
    trainer = tiny.trainer(folder, *callbacks, **OPTIONS)
    trainer.fit(Dies(at), tiny.loader(), tiny.loader(), ckpt_path="last")


def in_a_child(folder: Path, at: int | None) -> int:
    child = os.fork()
    if child == 0:
        try:
            fit(folder, at)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs" / "run" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    path = folder / "runs" / "run" / "tensorboard"
    found = EventAccumulator(str(path), size_guidance={"scalars": 0})
    found.Reload()
    tags: Any = found.Tags()["scalars"]
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in tags}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    fit(folder, None)
    return folder


# Before the first checkpoint, twice at the same step, right after and between checkpoints.
@pytest.mark.parametrize("deaths", [[2, 6], [5, 5, 11], [9, 17]])
def test_each_step_is_there_once_with_the_same_values(
    tmp_path: Path, whole: Path, deaths: list[int]
) -> None:  # pains/trainer.md row 29
    for at in deaths:
        assert in_a_child(tmp_path, at) == 9
    assert in_a_child(tmp_path, None) == 0
    expected = rows(whole)
    assert len(expected) == len({row["step"] for row in expected}) > 10
    assert rows(tmp_path) == expected
    assert events(tmp_path) == events(whole)
    assert all(len(dict(values)) == len(values) for values in events(whole).values())
