"""One kind of interval for validating, scheduling, logging, saving and stopping."""

from __future__ import annotations

from typing import Any

import pytest

import renshu
from renshu.errors import ConfigError
from renshu.intervals import Interval, Progress
from small_models import Classifier, loader, trainer


class Moments(renshu.Callback):
    """Notes the step, batch and epoch of each validation."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.batches: list[int] = []

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)
            self.batches.append(trainer.progress.batches)


def moments(**options: Any) -> Moments:
    seen = Moments()
    trainer(callbacks=[seen], **options).fit(Classifier(), loader(), loader(16))
    return seen


# pains/trainer.md row 3
def test_a_step_is_an_optimiser_step_and_intervals_go_across_epochs() -> None:
    seen = moments(validate_every="5 steps", accumulate_grad_batches=4, max_epochs=10)
    assert seen.steps == [5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({}, [12, 24]),
        ({"validate_every": "7 batches"}, [7, 14, 21]),
        ({"validate_every": "100 samples"}, [13]),
        ({"validate_every": "2 epochs"}, [24]),
        ({"check_val_every_n_epoch": 2}, [24]),
        ({"val_check_interval": 5}, [5, 10, 17, 22]),
        ({"val_check_interval": 0.5}, [6, 12, 18, 24]),
        ({"val_check_interval": 1.0}, [12, 24]),
        ({"val_check_interval": 5, "check_val_every_n_epoch": None}, [5, 10, 15, 20]),
        ({"val_check_interval": 6, "check_val_every_n_epoch": 2}, [18, 24]),
        ({"limit_val_batches": 0}, []),
    ],
)
def test_when_validation_runs(options: dict[str, Any], batches: list[int]) -> None:
    assert moments(max_epochs=2, **options).batches == batches


def test_events_due_together_run_in_one_order() -> None:
    order: list[str] = []

    class Ordered(Classifier):
        def on_validation_end(self) -> None:
            order.append("validate")

        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            order.append("schedule")
            scheduler.step()

        def configure_optimizers(self) -> Any:
            import torch

            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "every": "6 steps"},
            }

    class Log(renshu.loggers.logger.Logger):
        def log_metrics(self, metrics: Any, step: int) -> None:
            if "train_loss" in metrics:
                order.append("log")

    class Save(renshu.Callback):
        interval = Interval(6, "steps")

        def on_interval(self, trainer: Any, module: Any) -> None:
            order.append("save")

    trainer(
        validate_every="6 steps", log_every="6 steps", callbacks=[Save()], logger=[Log()],
        num_sanity_val_steps=0,
    ).fit(Ordered(), loader(), loader(16))  # fmt: skip
    assert order == ["validate", "schedule", "log", "save"] * 2


def test_reading_intervals() -> None:
    assert Interval.parse("30 min", "x") == Interval(30, "min")
    assert Interval.parse("1 step", "x") == Interval(1, "steps")
    assert Interval.parse("1.5 h", "x").count(Progress(seconds=5401)) == 1
    assert Interval(100, "samples").count(Progress(samples=99)) == 0
    for wrong in ("ten steps", "0 steps", "1.5 steps", "5", "-3 epochs", "3 weeks", 5, None):
        with pytest.raises(ConfigError, match="is not an interval"):
            Interval.parse(wrong, "x")  # type: ignore[arg-type]


def test_a_schedule_by_the_clock_is_refused() -> None:
    class Clock(Classifier):
        def configure_optimizers(self) -> Any:
            import torch

            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "every": "5 min"},
            }

    with pytest.raises(ConfigError, match="would not repeat"):
        trainer().fit(Clock(), loader())
