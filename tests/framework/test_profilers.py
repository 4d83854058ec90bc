"""Profilers: the table adds up, the trace names what ran, and the training is the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import small_models
from renshu import Callback, loops, profilers
from renshu.callbacks import ModelCheckpoint
from renshu.errors import ConfigError
from renshu.loggers import Logger
from renshu.profilers import LOOP, PassThroughProfiler, Profiler, PyTorchProfiler, SimpleProfiler


class Clock:
    """Time that passes only where a test says so, in whole seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(profilers, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def spend(self, seconds: float) -> None:
        self.now += seconds


def slow_parts(spend: Callable[[float], None]) -> tuple[Any, dict[str, Any], Any]:
    """A module, options and data of which each part takes a time of its own."""

    class Data(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            spend(1)
            return super().__getitem__(index)

    class Slow(small_models.Classifier):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            spend(2)
            return batch

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            spend(4)
            with self.trainer.profiler.profile("augment"):
                spend(1)
            return super().training_step(batch, batch_idx)

        def backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
            spend(8)
            super().backward(loss)

        def on_before_zero_grad(self, optimizer: Any) -> None:
            spend(3)

        def configure_gradient_clipping(self, optimizer: Any, *args: Any) -> None:
            spend(5)

        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            spend(6)
            super().lr_scheduler_step(scheduler, metric)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            spend(7)
            super().validation_step(batch, batch_idx)

        def on_save_checkpoint(self, checkpoint: Any) -> None:
            spend(20)

        def configure_optimizers(self) -> Any:
            class Sgd(torch.optim.SGD):
                def step(self, closure: Any = None) -> Any:
                    spend(9)
                    return super().step(closure)

            optimizer = Sgd(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]

    class Slowly(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            spend(11)

    class Writes(Logger):
        def log_metrics(self, *_: Any) -> None:
            spend(13)

    options = {
        "callbacks": [Slowly(), ModelCheckpoint(every="4 steps")], "logger": [Writes()],
        "log_every_n_steps": 2, "max_epochs": 2, "enable_checkpointing": None,
        "num_sanity_val_steps": 0, "gradient_clip_val": 1.0,
    }  # fmt: skip

    def loader(n: int) -> Any:
        return DataLoader(Data(*small_models.digits(n)), batch_size=4)

    return Slow(), options, (loader(16), loader(8))


def test_each_second_is_in_the_row_of_what_took_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # capabilities C4
    clock, profiler = Clock(monkeypatch), SimpleProfiler()
    module, options, data = slow_parts(clock.spend)
    trainer = small_models.trainer(profiler=profiler, **options)
    trainer.fit(module, *data)
    saves = 20 * 2
    assert dict(profiler.durations) == {
        "loader": 32, "transfer": 2 * 8, "training_step": 4 * 8, "augment": 8, "backward": 8 * 8,
        "hooks": 3 * 8, "clipping": 5 * 8, "optimiser": 9 * 8, "callbacks": 11 * 8,
        "schedulers": 6 * 2, "loggers": 13 * 4, "checkpoint": saves,
        # two batches an epoch: loading, transfer and step of each, and one record
        "validation": 2 * (8 + 2 * 2 + 2 * 7 + 13), LOOP: 0,
    }  # fmt: skip
    calls = {name: profiler.calls[name] for name in ("training_step", "validation", "checkpoint")}
    assert calls == {"training_step": 8, "validation": 2, "checkpoint": 2}
    lines = profiler.summary().splitlines()
    assert lines[0].split() == ["action", "seconds", "calls", "ms", "a", "call", "share"]
    shown = {line[:20].strip(): float(line[20:32]) for line in lines[1:]}
    assert shown.pop("total") == sum(shown.values()) == sum(profiler.durations.values())


def test_the_rows_add_up_to_the_measured_total(monkeypatch: pytest.MonkeyPatch) -> None:
    # capabilities C4
    measured: list[float] = []
    fit = loops.fit

    def timed(plan: Any) -> None:
        begin = time.perf_counter()
        fit(plan)
        measured.append(time.perf_counter() - begin)

    monkeypatch.setattr(loops, "fit", timed)
    profiler = SimpleProfiler()
    trainer = small_models.trainer(
        profiler=profiler, max_epochs=2, logger=["csv"], enable_checkpointing=None
    )
    trainer.fit(small_models.Classifier(), small_models.loader(800), small_models.loader(200))
    assert sum(profiler.durations.values()) == pytest.approx(measured[0], rel=0.03)
    # The table explains the time: what no part accounts for is the smaller part of it.
    assert profiler.durations[LOOP] < measured[0] / 2


class Manual(small_models.Classifier):
    automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss := super().training_step(batch, batch_idx))
        optimizer.step()
        return loss


class Closures(small_models.Classifier):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=2)


class Scheduled(small_models.Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Manual, {}),
        (Closures, {}),
        (Scheduled, {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1, "max_epochs": 2}),
        (Scheduled, {"precision": "16-mixed"}),
        (Scheduled, {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 2}),
    ],
)
@pytest.mark.parametrize("profiler", ["simple", "pytorch"])
def test_training_is_the_same_and_nothing_stays_behind(
    kind: type[small_models.Classifier], options: dict[str, Any], profiler: str
) -> None:
    ends = []
    for choice in (None, profiler):
        module = kind()
        trainer = small_models.trainer(profiler=choice, **options)
        trainer.fit(module, small_models.loader(), small_models.loader(16))
        ends.append(small_models.weights(module))
        assert not {"backward", "training_step", "lr_scheduler_step"} & vars(module).keys()
        assert not {"log_metrics", "save_checkpoint"} & vars(trainer).keys()
        assert not module.net[0]._forward_hooks
        plan: Any = trainer._plan
        assert not {"prepare"} & vars(plan).keys()
        assert "epoch" not in vars(plan.feed)
    assert small_models.equal(*ends)


def test_without_a_profiler_the_loop_calls_what_it_always_called() -> None:
    seen: list[Any] = []

    class Looks(Callback):
        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            plan = trainer._plan
            hooks = [getattr(h, "func", h) for found in plan.hooks.values() for h in found]
            wrapped = [f for f in (plan.step, *hooks, *plan.transfers) if hasattr(f, "__wrapped__")]
            seen.append((wrapped, plan.own_backward, "epoch" in vars(plan.feed)))

    trainer = small_models.trainer(callbacks=[Looks()])
    assert type(trainer.profiler) is PassThroughProfiler
    trainer.fit(small_models.Classifier(), small_models.loader(16))
    assert seen == [([], False, False)] * 2


def test_a_trace_names_actions_and_modules(tmp_path: Path) -> None:  # capabilities C4
    profiler = PyTorchProfiler(tmp_path / "out", "p", record_shapes=True)
    trainer = small_models.trainer(profiler=profiler)
    trainer.fit(small_models.Classifier(), small_models.loader(), small_models.loader(24))
    trace = json.loads((tmp_path / "out" / "train-p.json").read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    for name in ("training_step", "backward", "optimiser", "loader", "net.0: Linear"):
        assert names.count(name) == 3, name  # the second to fourth batch
    table = (tmp_path / "out" / "train-p.txt").read_text()
    assert "net.0: Linear" in table
    assert "aten::addmm" in table
    trainer.validate(dataloaders=small_models.loader(40))
    assert "validation_step" in (tmp_path / "out" / "validation-p.txt").read_text()


class Own(Profiler):
    """A user's: keeps what is open, and how deep it went."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[tuple[str, ...]] = set()

    def start(self, action_name: str) -> None:
        self.open.append(action_name)
        self.seen.add(tuple(self.open))

    def stop(self, action_name: str) -> None:
        assert self.open.pop() == action_name


def test_a_profiler_of_ones_own_is_told_of_all_actions(capsys: Any) -> None:
    own = Own()
    trainer = small_models.trainer(profiler=own)
    trainer.fit(small_models.Classifier(), small_models.loader(16), small_models.loader(8))
    assert own.open == []
    assert {(LOOP, "loader"), (LOOP, "backward"), (LOOP, "validation", "loader")} <= own.seen
    own.seen.clear()
    trainer.predict(dataloaders=[torch.rand(2, 64)])
    assert own.seen == {(LOOP,), (LOOP, "loader"), (LOOP, "predict_step")}
    assert "profile" not in capsys.readouterr().err


def test_the_table_is_printed_or_written(tmp_path: Path, capsys: Any) -> None:
    for profiler in ("simple", SimpleProfiler(filename="times", extended=False)):
        trainer = small_models.trainer(
            profiler=profiler, default_root_dir=str(tmp_path), logger=["csv"]
        )
        trainer.fit(small_models.Classifier(), small_models.loader(16))
    assert capsys.readouterr().err.count("profile of train\naction") == 1
    [path] = tmp_path.glob("runs/*/train-times.txt")
    assert path.read_text().splitlines()[0].split() == ["action", "seconds"]


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"there is no profiler 'simpel'\n(?s:.*)'simple'"):
        small_models.trainer(profiler="simpel")
    with pytest.raises(ConfigError, match="record_shapes=True"):
        PyTorchProfiler(group_by_input_shapes=True)
    profiler = PyTorchProfiler()
    trainer = small_models.trainer(profiler=profiler)
    trainer.fit(small_models.Classifier(), small_models.loader(8))
    assert "too few batches" in profiler.summary()
