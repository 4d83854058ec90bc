"""When a fit stops early, and that a killed run stops where the uninterrupted one does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from fake_trainer import FakeTrainer, values
from renshu.callbacks import EarlyStopping, ModelCheckpoint
from renshu.errors import ConfigError


def fit(tmp_path: Path, scores: list[float], **kwargs: Any) -> tuple[int, EarlyStopping]:
    callback = EarlyStopping("val_loss", **kwargs)
    trainer = FakeTrainer(tmp_path, [callback])
    return trainer.run(values(*scores), len(scores)), callback


@pytest.mark.parametrize(
    ("scores", "kwargs", "epochs", "reason"),
    [
        ([5, 4, 3, 2, 1], {"patience": 1}, 5, None),
        ([1, 2, 3, 4, 5], {"patience": 2}, 3, "has not improved for"),
        ([1, 2, 0.5, 3, 4], {"patience": 2}, 5, "has not improved for"),
        ([1, 1, 1, 1], {"patience": 3}, 4, "has not improved for"),
        ([1, 2, 3], {"patience": 0}, 2, "has not improved for"),
        ([1, 0.95, 0.9, 0.85], {"patience": 2, "min_delta": 0.1}, 3, "has not improved for"),
        ([1, 2, 3, 4], {"patience": 2, "mode": "max"}, 4, None),
        (
            [4, 3, 2, 1],
            {"patience": 2, "mode": "max", "min_delta": -0.5},
            3,
            "has not improved for",
        ),
        ([3, 0.4, 5], {"stopping_threshold": 0.5}, 2, "is better than 0.5"),
        ([3, 11, 5], {"divergence_threshold": 10.0}, 2, "is worse than 10.0"),
        ([3, math.nan, 5], {}, 2, "is not finite"),
        ([3, math.nan, 5], {"check_finite": False, "patience": 2}, 3, "has not improved for"),
    ],
)
def test_it_stops_when_it_should(
    tmp_path: Path, scores: list[float], kwargs: Any, epochs: int, reason: str | None
) -> None:
    ran, callback = fit(tmp_path, [float(score) for score in scores], **kwargs)
    assert ran == epochs
    assert callback.stopped_epoch == (epochs - 1 if reason else 0)
    told = callback.stopping_reason_message
    assert told is None if reason is None else reason in str(told)


def test_the_counts_are_told(tmp_path: Path) -> None:
    _, callback = fit(tmp_path, [3.0, 1.0, 2.0, 2.5], patience=5)
    assert (callback.wait_count, callback.best_score.item()) == (2, 1.0)


@given(
    scores=st.lists(st.floats(-5, 5) | st.just(math.nan), min_size=2, max_size=12),
    patience=st.integers(0, 3),
    min_delta=st.sampled_from([0.0, 0.5]),
    mode=st.sampled_from(["min", "max"]),
    kill=st.integers(1, 11),
)
@settings(max_examples=100, deadline=None)
def test_a_killed_run_stops_as_the_uninterrupted_one(
    tmp_path_factory: pytest.TempPathFactory,
    scores: list[float],
    patience: int,
    min_delta: float,
    mode: str,
    kill: int,
) -> None:  # pains/trainer.md row 27
    folder = tmp_path_factory.mktemp("run")
    policy = {"patience": patience, "min_delta": min_delta, "mode": mode}

    def parts(name: str) -> FakeTrainer:
        callbacks = [EarlyStopping("val_loss", **policy), ModelCheckpoint()]
        return FakeTrainer(folder / name, callbacks)

    whole = parts("whole")
    epochs = whole.run(values(*scores), len(scores))
    first = parts("killed")
    first.start()
    while first.progress.epochs < min(kill, epochs) and not first.should_stop:
        first.epoch(values(*scores)(first.progress.epochs))
    first.wait_for_checkpoints()
    if first.should_stop:
        return
    second = parts("killed")
    last = folder / "killed" / "checkpoints" / f"step={first.progress.step:06d}"
    assert second.run(values(*scores), len(scores), resume=last) == epochs
    assert str(second.callbacks[0].state_dict()) == str(whole.callbacks[0].state_dict())


def test_a_missing_key_is_told_with_the_state_saved(tmp_path: Path) -> None:
    stop = EarlyStopping("val_los")  # pains/trainer.md row 28
    trainer = FakeTrainer(tmp_path, [stop, ModelCheckpoint(every="100 steps")])
    with pytest.raises(ConfigError, match="did you mean 'val_loss'"):
        trainer.run(values(1.0, 1.0, 1.0), 3)
    assert trainer.folders() == ["step=000001"]


def test_a_missing_validation_key_is_told_at_the_first_validation(tmp_path: Path) -> None:
    stop = EarlyStopping("val_los")  # pains/trainer.md row 28
    trainer = FakeTrainer(tmp_path, [stop, ModelCheckpoint()], val_check_interval=2)
    trainer.start()
    trainer.step()
    with pytest.raises(ConfigError, match="EarlyStopping watches 'val_los'"):
        trainer.step({"val_loss": 1.0})
    assert trainer.folders() == ["step=000002"]


def test_another_patience_holds_after_a_resume(tmp_path: Path) -> None:
    first = FakeTrainer(tmp_path, [EarlyStopping("val_loss", patience=2), ModelCheckpoint()])
    assert first.run(values(1.0, 2.0, 2.0), 3) == 3
    second = FakeTrainer(tmp_path, [EarlyStopping("val_loss", patience=4), ModelCheckpoint()])
    last = tmp_path / "checkpoints" / "step=000003"
    assert second.run(values(*[2.0] * 9), 9, resume=last) == 5


def test_a_missing_key_is_no_error_when_not_strict(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, [EarlyStopping("nothing", strict=False)])
    assert trainer.run(values(1.0, 1.0), 2) == 2


def test_it_checks_after_each_validation_inside_an_epoch(tmp_path: Path) -> None:
    callback = EarlyStopping("val_loss", patience=2)
    trainer = FakeTrainer(tmp_path, [callback], val_check_interval=2)
    trainer.start()
    trainer.step({"val_loss": 1.0})
    trainer.step({"val_loss": 2.0})
    assert not trainer.should_stop
    trainer.step({"val_loss": 2.0})
    assert trainer.should_stop


def test_wrong_mode_is_refused() -> None:
    with pytest.raises(ConfigError, match="min, max"):
        EarlyStopping("val_loss", mode="auto")


# With the real Trainer


class Scripted(tiny.Tiny):
    """Validation gives the scores of a list, whatever the weights are."""

    def __init__(self, scores: list[float], name: str = "val_loss") -> None:
        super().__init__()
        self.scores, self.name = scores, name

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log(self.name, torch.tensor(self.scores[self.current_epoch]))

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


def test_a_real_fit_stops(tmp_path: Path) -> None:
    stop = EarlyStopping("val_loss", patience=2)
    trainer = tiny.trainer(tmp_path, stop, max_epochs=8)
    trainer.fit(Scripted([3, 1, 2, 2, 0, 0, 0, 0]), tiny.loader(), tiny.loader())
    assert stop.stopped_epoch == 3
    assert trainer.global_step == 4 * 4


def test_a_real_fit_with_a_missing_key_is_saved_and_told(tmp_path: Path) -> None:
    trainer = tiny.trainer(tmp_path, EarlyStopping("val_los"), max_epochs=3)
    with pytest.raises(ConfigError, match="did you mean 'val_loss'"):
        trainer.fit(Scripted([1, 1, 1]), tiny.loader(), tiny.loader())
    folder = tmp_path / "runs" / "run" / "checkpoints"
    assert [path.name for path in folder.iterdir()] == ["step=000004"]


def test_a_value_logged_at_the_end_of_the_training_epoch_is_seen(tmp_path: Path) -> None:
    class Late(tiny.Tiny):
        def on_train_epoch_end(self) -> None:
            self.log("late", float(self.current_epoch))

    stop = EarlyStopping("late", patience=1)
    trainer = tiny.trainer(tmp_path, stop, max_epochs=5)
    trainer.fit(Late(), tiny.loader())
    assert stop.stopped_epoch == 1
