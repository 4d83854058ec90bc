"""Which checkpoints are kept: the best and the newest, whatever the metrics do."""

from __future__ import annotations

import json
import math
import os
import signal
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from fake_trainer import FakeTrainer, values
from renshu.callbacks.model_checkpoint import ModelCheckpoint
from renshu.errors import ConfigError


def fit(tmp_path: Path, scores: list[float], **kwargs: Any) -> tuple[FakeTrainer, ModelCheckpoint]:
    callback = ModelCheckpoint(**kwargs)
    trainer = FakeTrainer(tmp_path, [callback])
    trainer.run(values(*scores), len(scores))
    return trainer, callback


def steps(*numbers: int) -> list[str]:
    return [f"step={number:06d}" for number in numbers]


def test_without_a_monitor_the_newest_stays(tmp_path: Path) -> None:
    trainer, callback = fit(tmp_path, [3.0, 2.0, 1.0])
    assert trainer.folders() == steps(3)
    assert Path(callback.best_model_path).name == "step=000003" == trainer.writes[-1]
    assert callback.best_model_path == callback.last_model_path


@pytest.mark.parametrize(
    ("kwargs", "kept", "best"),
    [
        ({"monitor": "val_loss"}, [2, 5], 2),
        ({"monitor": "val_loss", "save_last": False}, [2], 2),
        ({"monitor": "val_loss", "save_top_k": 2, "save_last": False}, [2, 4], 2),
        ({"monitor": "val_loss", "save_top_k": 2}, [2, 4, 5], 2),
        ({"monitor": "val_loss", "mode": "max"}, [1, 5], 1),
        ({"monitor": "val_loss", "save_top_k": -1}, [1, 2, 3, 4, 5], 2),
        ({"monitor": "val_loss", "save_top_k": 0, "save_last": True}, [5], None),
        ({"monitor": "val_loss", "save_top_k": 0}, [], None),
        ({"save_top_k": -1}, [1, 2, 3, 4, 5], 5),
        ({"save_top_k": 0}, [], None),
        ({"every_n_epochs": 2}, [5], 5),
        ({"every_n_epochs": 2, "save_top_k": -1, "save_last": False}, [2, 4], 4),
        ({"every_n_epochs": 0}, [], None),
    ],
)
def test_each_policy_keeps_what_it_says(
    tmp_path: Path, kwargs: dict[str, Any], kept: list[int], best: int | None
) -> None:
    trainer, callback = fit(tmp_path, [5.0, 1.0, 4.0, 2.0, 3.0], **kwargs)
    assert trainer.folders() == steps(*kept)
    assert Path(callback.best_model_path).name == (steps(best)[0] if best else "")


def test_scores_are_told_as_in_lightning(tmp_path: Path) -> None:
    _, callback = fit(tmp_path, [5.0, 1.0, 4.0, 2.0], monitor="val_loss", save_top_k=3)
    assert callback.best_model_score is not None and callback.best_model_score.item() == 1.0
    assert callback.current_score is not None and callback.current_score.item() == 2.0
    names = {Path(path).name: score.item() for path, score in callback.best_k_models.items()}
    assert names == {"step=000002": 1.0, "step=000004": 2.0, "step=000003": 4.0}
    assert [Path(path).name for path in callback.best_k_models] == steps(2, 4, 3)
    assert Path(callback.last_model_path).name == "step=000004"


score = st.sampled_from([0.0, 1.0, 1.0, 2.0, 3.0, -1.0, math.nan]) | st.floats()


@given(
    scores=st.lists(score, min_size=1, max_size=12),
    mode=st.sampled_from(["min", "max"]),
    top=st.integers(-1, 4),
    save_last=st.sampled_from([None, True, False]),
    killed=st.lists(st.integers(0, 11), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_random_metrics_never_lose_the_best_or_the_newest(
    scores: list[float], mode: str, top: int, save_last: bool | None, killed: list[int]
) -> None:  # pains/trainer.md rows 7 and 26
    with tempfile.TemporaryDirectory() as folder:
        _random_fit(Path(folder), scores, mode, top, save_last, killed)


def _random_fit(
    folder: Path, scores: list[float], mode: str, top: int, save_last: bool | None, killed: Any
) -> None:
    policy = {"monitor": "m", "mode": mode, "save_top_k": top, "save_last": save_last}
    trainer, callback = _started(folder, policy)
    reference: dict[int, float] = {}
    newest = save_last if save_last is not None else top != 0
    for epoch, value in enumerate(scores):
        writes = len(trainer.writes)
        trainer.epoch({"m": value})
        assert len(trainer.writes) - writes <= 1
        trainer.wait_for_checkpoints()
        reference[epoch + 1] = value
        wanted = _kept(reference, mode, top, newest)
        best = _best(reference, mode, top)
        assert wanted <= set(trainer.folders())
        assert Path(callback.best_model_path).name == best
        if callback.last_model_path:
            assert Path(callback.last_model_path).is_dir()
        if epoch in killed and newest:
            trainer, callback = _started(folder, policy, Path(callback.last_model_path))
    trainer.end()
    assert set(trainer.folders()) == _kept(reference, mode, top, newest)


def _started(
    folder: Path, policy: Any, resume: Path | None = None
) -> tuple[FakeTrainer, ModelCheckpoint]:
    callback = ModelCheckpoint(**policy)
    trainer = FakeTrainer(folder, [callback])
    trainer.start(resume)
    return trainer, callback


def _best(scores: dict[int, float], mode: str, top: int) -> str:
    real = {step: value for step, value in scores.items() if not math.isnan(value)}
    if not real or top == 0:
        return ""
    best = min(real.values()) if mode == "min" else max(real.values())
    return f"step={next(step for step, value in real.items() if value == best):06d}"


def _kept(scores: dict[int, float], mode: str, top: int, newest: bool) -> set[str]:
    """What the policies want, from the definition: a later equal value displaces no earlier one."""
    order = sorted(
        (step for step, value in scores.items() if not math.isnan(value)),
        key=lambda step: (scores[step] if mode == "min" else -scores[step], step),
    )
    kept = set(scores) if top == -1 else set(order[:top])
    kept |= {max(scores)} if newest else set()
    return set(steps(*kept))


def test_nan_is_never_the_best(tmp_path: Path) -> None:
    trainer, callback = fit(tmp_path, [math.nan, 2.0, math.nan], monitor="val_loss")
    assert Path(callback.best_model_path).name == "step=000002"
    assert trainer.folders() == steps(2, 3)


def test_an_old_checkpoint_goes_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    callback = ModelCheckpoint()
    trainer = FakeTrainer(tmp_path, [callback])
    trainer.start()
    trainer.epoch()
    trainer.epoch()
    assert trainer.folders() == steps(1)
    trainer.in_flight.clear()  # killed: the second one was never published
    assert trainer.folders() == steps(1)


def test_a_killed_run_deletes_as_one_never_interrupted(tmp_path: Path) -> None:
    scores = [5.0, 3.0, 4.0, 6.0, 2.0, 7.0]  # pains/trainer.md row 27
    policy = {"monitor": "val_loss", "save_top_k": 2}
    whole = FakeTrainer(tmp_path / "whole", [ModelCheckpoint(**policy)])
    whole.run(values(*scores), 6)
    for stop in range(1, 6):
        folder = tmp_path / str(stop)
        first = FakeTrainer(folder, [ModelCheckpoint(**policy)])
        first.start()
        for epoch in range(stop):
            first.epoch(values(*scores)(epoch))
        first.wait_for_checkpoints()
        second = FakeTrainer(folder, [ModelCheckpoint(**policy)])
        second.run(values(*scores), 6, resume=folder / "checkpoints" / f"step={stop:06d}")
        assert second.folders() == whole.folders()
        assert second.callbacks[0].state_dict() == whole.callbacks[0].state_dict()


def test_a_moved_run_folder_keeps_its_best(tmp_path: Path) -> None:
    fit(tmp_path / "a", [1.0, 2.0], monitor="val_loss")
    (tmp_path / "a").rename(tmp_path / "b")
    callback = ModelCheckpoint(monitor="val_loss")
    trainer = FakeTrainer(tmp_path / "b", [callback])
    trainer.start(tmp_path / "b" / "checkpoints" / "step=000002")
    assert callback.best_model_path == str(tmp_path / "b" / "checkpoints" / "step=000001")


@pytest.mark.parametrize("name", ["..", "../../outside", "/", "../run"])
def test_a_hostile_state_deletes_nothing_outside(tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    fit(tmp_path / "run", [1.0])
    state_file = tmp_path / "run" / "checkpoints" / "step=000001" / "state.json"
    state = json.loads(state_file.read_text())
    for callback_state in state["callbacks"].values():
        callback_state["saved"] = {name: None, "step=000001": None}
    state_file.write_text(json.dumps(state))
    trainer = FakeTrainer(tmp_path / "run", [ModelCheckpoint()])
    trainer.run(values(1.0, 1.0), 2, resume=state_file.parent)
    assert outside.is_dir()
    assert trainer.folders() == steps(2)


def test_a_run_below_a_symbolic_link_is_swept_too(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    trainer, _ = fit(tmp_path / "link", [1.0, 2.0, 3.0])
    assert trainer.folders() == steps(3)


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "checkpoints" / "step=000002"
    other.mkdir(parents=True)
    trainer, _ = fit(tmp_path, [1.0, 2.0, 3.0])
    assert other.is_dir()
    assert trainer.writes == ["step=000001", "step=000002-v1", "step=000003"]
    assert trainer.folders() == steps(2, 3)


@pytest.mark.parametrize(
    ("filename", "auto", "expected"),
    [
        (None, True, "step=000007"),
        (None, False, "step=000007"),
        ("{epoch}", True, "epoch=2"),
        ("{epoch:03d}-{val_loss:.2f}", True, "epoch=002-val_loss=0.12"),
        ("a{epoch}-loss{val/loss:.3f}", False, "a2-loss1.500"),
        ("{val/loss:.1f}", True, "val_loss=1.5"),
        ("{missing:.2f}", True, "missing=nan"),
        ("{missing:d}", True, "missing=nan"),
        ("{__class__}", True, "__class__=nan"),
        ("best", True, "best"),
    ],
)
def test_names_follow_lightnings_patterns(filename: str | None, auto: bool, expected: str) -> None:
    callback = ModelCheckpoint(filename=filename, auto_insert_metric_name=auto)
    metrics = {"epoch": 2, "step": 7, "val_loss": 0.123456, "val/loss": 1.5}
    assert callback.format_checkpoint_name(metrics) == expected


def test_the_metric_in_the_name_is_that_of_the_moment(tmp_path: Path) -> None:
    trainer, _ = fit(tmp_path, [0.5, 0.25], monitor="val_loss", filename="{epoch}-{val_loss:.2f}")
    assert trainer.writes == ["epoch=0-val_loss=0.50", "epoch=1-val_loss=0.25"]


def test_saves_by_steps_and_at_the_end(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, [ModelCheckpoint(every_n_train_steps=3)])
    trainer.start()
    trainer.epoch(steps=8)
    trainer.end()
    assert trainer.writes == steps(3, 6, 8)


def test_one_interval_is_given(tmp_path: Path) -> None:
    assert str(ModelCheckpoint(every="30 min").every) == "30 min"
    assert str(ModelCheckpoint(train_time_interval=timedelta(minutes=2)).every) == "120 s"
    assert str(ModelCheckpoint(every_n_epochs=2).every) == "2 epochs"
    assert str(ModelCheckpoint().every) == "1 epochs"
    with pytest.raises(ConfigError, match="more than one interval"):
        ModelCheckpoint(every_n_train_steps=1, every_n_epochs=1)
    for wrong in ({"every": "1 fortnight"}, {"every_n_epochs": -1}, {"every_n_train_steps": -2}):
        with pytest.raises(ConfigError, match="is not an interval"):
            ModelCheckpoint(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="save_top_k"):
        ModelCheckpoint(save_top_k=3)
    with pytest.raises(ConfigError, match="mode"):
        ModelCheckpoint(monitor="x", mode="auto")


def test_validations_inside_the_epoch_save_each_time(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, [ModelCheckpoint(monitor="val_loss")], val_check_interval=0.5)
    trainer.start()
    trainer.step()
    trainer.step({"val_loss": 1.0})
    trainer.step()
    trainer.step({"val_loss": 2.0}, last=True)
    trainer.end()
    assert trainer.writes == steps(2, 4)


def test_a_value_of_a_validation_ranks_one_save(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss", every_n_train_steps=3, save_top_k=5)
    trainer = FakeTrainer(tmp_path, [callback], val_check_interval=7)
    trainer.start()
    for step in range(1, 22):
        trainer.step({"val_loss": 1.0 / step} if step % 7 == 0 else None)
    trainer.end()
    # Before the first value, and between one that has ranked and the next, a save is the newest.
    assert trainer.writes == steps(3, 6, 9, 12, 15, 18, 21)
    ranked = {Path(path).name: score.item() for path, score in callback.best_k_models.items()}
    assert ranked == {"step=000009": 1 / 7, "step=000015": 1 / 14, "step=000021": 1 / 21}
    assert trainer.folders() == steps(9, 15, 21)


def test_nothing_is_saved_in_a_fast_dev_run(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, [ModelCheckpoint()], fast_dev_run=True)
    trainer.run(values(1.0), 1)
    assert trainer.writes == []


def test_an_exception_saves_when_asked(tmp_path: Path) -> None:
    for wanted in (False, True):
        trainer = FakeTrainer(tmp_path / str(wanted), [ModelCheckpoint(save_on_exception=wanted)])
        trainer.start()
        trainer.step()
        trainer.call("on_exception", RuntimeError())
        assert trainer.writes == (steps(1) if wanted else [])


def test_an_exception_before_the_fit_has_begun_saves_nothing(tmp_path: Path) -> None:
    class Broken(tiny.Tiny):
        def prepare_data(self) -> None:
            raise ValueError("no data")

    trainer = tiny.trainer(tmp_path, ModelCheckpoint(save_on_exception=True))
    with pytest.raises(ValueError, match="no data"):
        trainer.fit(Broken(), tiny.loader())
    assert trainer.global_step == 0


# pains/trainer.md row 28: a monitored key that nobody logs


def test_a_missing_key_is_told_after_the_first_epoch_with_the_state_saved(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, [ModelCheckpoint(monitor="val_los")])
    trainer.start()
    with pytest.raises(ConfigError) as error:
        trainer.epoch({"val_loss": 1.0, "val_acc": 0.5})
    assert "'val_los'" in str(error.value)
    assert "val_acc, val_loss" in str(error.value)
    assert "did you mean 'val_loss'?" in str(error.value)
    assert trainer.folders() == steps(1)


def test_a_missing_key_of_training_is_told_at_the_first_epochs_end(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, [ModelCheckpoint(monitor="train_los")])
    trainer.start()
    with pytest.raises(ConfigError, match="train_los"):
        trainer.epoch({"val_loss": 1.0})
    assert trainer.folders() == steps(1)


def test_a_missing_key_is_told_at_the_end_of_a_one_epoch_fit(tmp_path: Path) -> None:
    trainer = FakeTrainer(tmp_path, [ModelCheckpoint(monitor="nothing", every="100 steps")])
    with pytest.raises(ConfigError, match="nothing"):
        trainer.run(values(1.0), 1)
    assert trainer.folders() == steps(1)


def test_a_key_of_a_validation_every_second_epoch_is_waited_for(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss")
    trainer = FakeTrainer(tmp_path, [callback], check_val_every_n_epoch=2)
    trainer.run(values(math.inf, 1.0, math.inf, 0.5), 4)
    assert Path(callback.best_model_path).name == "step=000004"


def test_a_resume_does_not_need_the_key_at_once(tmp_path: Path) -> None:
    policy = {"monitor": "val_loss", "every": "2 steps"}
    first = FakeTrainer(tmp_path, [ModelCheckpoint(**policy)])
    first.start()
    first.epoch({"val_loss": 1.0}, steps=2)
    first.wait_for_checkpoints()
    second = FakeTrainer(tmp_path, [ModelCheckpoint(**policy)])
    second.start(tmp_path / "checkpoints" / "step=000002")
    second.epoch({"val_loss": 0.5}, steps=5)
    second.end()
    assert "step=000007" in second.folders()


# With the real Trainer


class Scripted(tiny.Tiny):
    """Validation gives the scores of a list, whatever the weights are."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores

    def on_validation_epoch_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.log("val_loss", torch.tensor(self.scores[self.current_epoch]))

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "runs" / "run" / "checkpoints").iterdir())


def counted_writes(trainer: Any) -> list[int]:
    """The optimiser step of each checkpoint that the trainer writes from here on."""
    writes: list[int] = []
    save = trainer.save_checkpoint

    def counted(*args: Any, **kwargs: Any) -> Path:
        writes.append(trainer.global_step)
        return save(*args, **kwargs)

    trainer.save_checkpoint = counted
    return writes


def test_a_real_fit_keeps_the_best_and_the_newest(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss", save_top_k=2)
    trainer = tiny.trainer(tmp_path, callback, max_epochs=6)
    trainer.fit(Scripted([5, 1, 4, 2, 6, 3]), tiny.loader(), tiny.loader())
    assert saved(tmp_path) == steps(8, 16, 24)
    assert Path(callback.best_model_path).name == "step=000008"


def test_a_real_run_resumed_anywhere_keeps_the_same(tmp_path: Path) -> None:
    scores = [5.0, 1.0, 4.0, 2.0, 6.0, 3.0]  # pains/trainer.md row 27

    def fit_to(name: str, epochs: int, ckpt_path: str | None = None) -> ModelCheckpoint:
        callback = ModelCheckpoint(monitor="val_loss", save_top_k=2)
        trainer = tiny.trainer(tmp_path / name, callback, max_epochs=epochs)
        trainer.fit(Scripted(scores), tiny.loader(), tiny.loader(), ckpt_path=ckpt_path)
        return callback

    whole = fit_to("whole", 6)
    for epochs in (1, 3, 5):
        fit_to(str(epochs), epochs)
        resumed = fit_to(str(epochs), 6, "last")
        assert saved(tmp_path / str(epochs)) == saved(tmp_path / "whole")
        assert resumed.state_dict() == whole.state_dict()


def test_a_real_save_is_one_write_of_the_tensors(tmp_path: Path) -> None:  # pains/trainer.md row 7
    trainer = tiny.trainer(
        tmp_path, ModelCheckpoint(monitor="val_loss", save_last=True), max_epochs=4
    )
    writes = counted_writes(trainer)
    trainer.fit(Scripted([4, 3, 2, 1]), tiny.loader(), tiny.loader())
    assert writes == [4, 8, 12, 16]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_a_state_saved_before_its_validation_is_ranked_without_a_second_write(
    tmp_path: Path,
) -> None:  # pains/trainer.md row 7
    """Batch 5 saves step 1 and batch 6 validates it; batch 10 saves step 2, which nobody does."""
    callback = ModelCheckpoint(monitor="val_loss", every="5 batches")
    options: dict[str, Any] = {"accumulate_grad_batches": 4, "validate_every": "6 batches"}
    trainer = tiny.trainer(tmp_path, callback, max_epochs=1, **options)
    writes = counted_writes(trainer)
    trainer.fit(Scripted([0.5]), tiny.loader(88), tiny.loader())
    assert writes == [1, 2, 3]
    assert Path(callback.best_model_path).name == "step=000001"
    assert callback.best_model_score is not None and callback.best_model_score.item() == 0.5
    assert saved(tmp_path) == steps(1, 3)


def interrupted_at(folder: Path, step: int, **options: Any) -> Any:
    """A run that Ctrl-C stopped after a step, with the state that the Trainer saved then."""

    class Presses(tiny.Tiny):
        def on_train_batch_end(self, *_: Any) -> None:
            if self.trainer.global_step == step:
                os.kill(os.getpid(), signal.SIGINT)

    trainer = tiny.trainer(folder, ModelCheckpoint(**options), max_epochs=2)
    trainer.fit(Presses(), tiny.loader(), tiny.loader())
    assert trainer.interrupted
    return trainer


def test_the_state_of_a_ctrl_c_goes_once_a_newer_checkpoint_is_complete(tmp_path: Path) -> None:
    interrupted_at(tmp_path, 2)
    name = "interrupted-step=000002-batch=000002"
    assert saved(tmp_path) == [name]
    seen: list[list[str]] = []

    class Looks(tiny.Tiny):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if self.trainer.global_step == 6:
                self.trainer.wait_for_checkpoints()
                seen.append(saved(tmp_path))

    trainer = tiny.trainer(tmp_path, ModelCheckpoint(), max_epochs=2)
    trainer.fit(Looks(), tiny.loader(), tiny.loader(), ckpt_path="last")
    # While a save may still fail everything before it stays.
    assert seen == [[name, *steps(4)]]
    assert saved(tmp_path) == steps(8)


def test_only_a_checkpoint_that_can_be_resumed_replaces_that_of_a_ctrl_c(tmp_path: Path) -> None:
    interrupted_at(tmp_path, 6, save_weights_only=True)
    name = "interrupted-step=000006-batch=000006"
    trainer = tiny.trainer(tmp_path, ModelCheckpoint(save_weights_only=True), max_epochs=2)
    trainer.fit(
        tiny.Tiny(),
        tiny.loader(),
        tiny.loader(),
        ckpt_path=tmp_path / "runs" / "run" / "checkpoints" / name,
    )
    assert saved(tmp_path) == [name, *steps(8)]


def test_real_validations_inside_an_epoch(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss", save_top_k=-1)
    trainer = tiny.trainer(tmp_path, callback, max_epochs=2, val_check_interval=2)
    trainer.fit(tiny.Tiny(), tiny.loader(), tiny.loader())
    assert saved(tmp_path) == steps(2, 4, 6, 8)
    assert len(callback.best_k_models) == 4


def test_a_real_interval_of_steps_ranks_by_the_newest_validation(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss", save_top_k=-1, every="3 steps")
    trainer = tiny.trainer(tmp_path, callback, max_epochs=2)
    trainer.fit(tiny.Tiny(), tiny.loader(), tiny.loader())
    assert saved(tmp_path) == steps(3, 6, 8)
    assert {Path(path).name for path in callback.best_k_models} == set(steps(6, 8))


def test_a_training_metric_ranks_at_every_step(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="train_loss", save_top_k=-1, every="3 steps")
    trainer = tiny.trainer(tmp_path, callback, max_epochs=2)
    trainer.fit(tiny.Tiny(), tiny.loader(), tiny.loader())
    assert {Path(path).name for path in callback.best_k_models} == set(steps(3, 6, 8))


def test_a_real_missing_key_is_told_with_the_state_saved(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_los")
    trainer = tiny.trainer(tmp_path, callback, max_epochs=3, num_sanity_val_steps=0)
    with pytest.raises(ConfigError, match="did you mean 'val_loss'"):
        trainer.fit(tiny.Tiny(), tiny.loader(), tiny.loader())  # pains/trainer.md row 28
    assert saved(tmp_path) == steps(4)


def test_a_missing_validation_key_is_told_at_the_first_validation(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_los", every="1000 steps")
    more = {"val_check_interval": 2, "num_sanity_val_steps": 0}
    trainer = tiny.trainer(tmp_path, callback, max_epochs=3, **more)
    with pytest.raises(ConfigError, match="did you mean 'val_loss'"):
        trainer.fit(tiny.Tiny(), tiny.loader(), tiny.loader())
    assert saved(tmp_path) == steps(2)


@pytest.mark.parametrize("monitor", ["train_loss", "train_los"])
def test_a_limit_inside_the_first_epoch_is_the_last_moment_for_a_key(
    tmp_path: Path, monitor: str
) -> None:
    trainer = tiny.trainer(tmp_path, ModelCheckpoint(monitor=monitor), max_steps=3)
    if monitor == "train_loss":
        trainer.fit(tiny.Tiny(), tiny.loader())
    else:
        with pytest.raises(ConfigError, match="did you mean 'train_loss'"):
            trainer.fit(tiny.Tiny(), tiny.loader())
    assert saved(tmp_path) == steps(3)


def test_a_key_of_the_epochs_end_is_waited_for(tmp_path: Path) -> None:
    class Late(tiny.Tiny):
        def on_train_epoch_end(self) -> None:
            self.log("late", float(self.current_epoch))

    callback = ModelCheckpoint(monitor="late", every="1 steps", mode="max")
    trainer = tiny.trainer(tmp_path, callback, max_epochs=2, val_check_interval=2)
    trainer.fit(Late(), tiny.loader(), tiny.loader())
    assert Path(callback.best_model_path).name == "step=000008"


def test_without_a_folder_it_is_refused(tmp_path: Path) -> None:
    class Brings(tiny.Tiny):
        def configure_callbacks(self) -> Any:
            return ModelCheckpoint()

    trainer = tiny.trainer(tmp_path, enable_checkpointing=False, logger=False, max_epochs=1)
    with pytest.raises(ConfigError, match="no run folder"):
        trainer.fit(Brings(), tiny.loader())


def test_a_failed_save_leaves_best_and_newest_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = ModelCheckpoint(monitor="val_loss")
    trainer = tiny.trainer(tmp_path, callback, max_epochs=3)
    save = trainer.save_checkpoint

    def fails(*args: Any, **kwargs: Any) -> Path:
        if trainer.global_step == 8:
            raise OSError(28, "No space left on device")
        return save(*args, **kwargs)

    monkeypatch.setattr(trainer, "save_checkpoint", fails)
    with pytest.raises(OSError, match="No space"):
        trainer.fit(Scripted([3, 2, 1]), tiny.loader(), tiny.loader())
    assert Path(callback.best_model_path).name == "step=000004" == saved(tmp_path)[0]
    assert callback.last_model_path == callback.best_model_path


def test_a_second_fit_starts_new_lists(tmp_path: Path) -> None:
    callback = ModelCheckpoint(monitor="val_loss", dirpath=tmp_path / "own")
    for scores in ([1.0, 2.0], [4.0, 3.0]):
        tiny.trainer(tmp_path, callback, max_epochs=2, run=None).fit(
            Scripted(scores), tiny.loader(), tiny.loader()
        )
    assert callback.best_model_score is not None and callback.best_model_score.item() == 3.0
    assert Path(callback.best_model_path).parent == tmp_path / "own"


def test_a_checkpoint_of_weights_alone(tmp_path: Path) -> None:
    from renshu.checkpoints import read

    callback = ModelCheckpoint(save_weights_only=True)
    tiny.trainer(tmp_path, callback, max_epochs=1).fit(tiny.Tiny(), tiny.loader())
    assert "optimizer_states" not in read(callback.last_model_path)
