"""What a user may get wrong: each says what, where, what is allowed, before training if it can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import renshu
from renshu.errors import ConfigError, RenshuError
from small_models import Classifier, digits, loader, trainer


def fit(*data: Any, options: dict[str, Any] | None = None, **methods: Any) -> renshu.Trainer:
    run = trainer(**options or {})
    run.fit(type("Wrong", (Classifier,), methods)(), *(data or (loader(16),)))
    return run


def scheduled(**keys: Any) -> Callable[[Any], Any]:
    def configure_optimizers(self: Any) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, **keys}}

    return configure_optimizers


def returning(value: Any) -> Callable[[Any], Any]:
    return lambda self, *_: value(self) if callable(value) else value


@pytest.mark.parametrize(
    ("methods", "said"),
    [
        ({"training_step": lambda self: None}, r"training_step\(\) cannot be called"),
        ({"training_step": lambda self, a, b, c: None}, r"training_step\(a, b, c\) cannot"),
        ({"on_train_batch_end": lambda self: None}, r"does not take the hook's arguments"),
        ({"on_train_epoch_end": lambda self, outputs: None}, r"on_train_epoch_end\(self\)"),
        ({"training_step": returning(0.5)}, "returned float"),
        ({"training_step": returning(torch.tensor(1.0))}, "has no graph"),
        ({"training_step": lambda self, b, i: self(b[0]).sum(1)}, "has 8 values"),
        ({"configure_optimizers": returning(None)}, "returned no optimiser"),
        ({"configure_optimizers": returning("adam")}, "gave a str"),
        ({"configure_optimizers": lambda self: torch.optim.SGD([], lr=1)}, "empty parameter list"),
        ({"configure_optimizers": lambda self: torch.optim.SGD(self.parameters(), lr=-1.0)},
         "Invalid learning rate"),
        ({"configure_optimizers": scheduled(intervall="step")}, "did you mean 'interval'"),
        ({"configure_optimizers": scheduled(interval="steps")}, "did you mean 'step'"),
        ({"setup": lambda self, stage: self.log("a", 1.0)}, "outside the hooks of a loop"),
        ({"on_fit_end": lambda self: self.log("a", 1.0)}, "outside the hooks of a loop"),
        ({"on_train_epoch_end": lambda self: self.log("a", "high")}, "got str"),
    ],
)  # fmt: skip
def test_a_module_that_cannot_work_is_refused(methods: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fit(**methods)


def test_a_callback_with_wrong_arguments_is_refused_before_anything_starts() -> None:
    started: list[str] = []

    class Old(renshu.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any) -> None: ...  # type: ignore[override]

        def setup(self, trainer: Any, module: Any, stage: str) -> None:
            started.append(stage)

    with pytest.raises(ConfigError, match=r"Old.on_train_batch_end\(trainer(.|\n)*batch_idx\)"):
        fit(options={"callbacks": [Old()]})
    assert not started


def test_hooks_that_take_more_or_leave_out_what_has_a_default_are_fine() -> None:
    class Wide(renshu.Callback):
        def on_train_batch_end(self, *arguments: Any, **more: Any) -> None: ...

    fit(options={"callbacks": [Wide()]}, on_train_batch_start=lambda self, batch, batch_idx: None)


def test_a_step_that_leaves_a_batch_out_is_no_error() -> None:
    assert fit(training_step=returning(None)).global_step == 0


@pytest.mark.parametrize(
    "empty", [[], DataLoader(loader(4).dataset, 8, drop_last=True)], ids=["list", "drop_last"]
)
def test_a_loader_without_batches_is_refused(empty: Any) -> None:
    with pytest.raises(ConfigError, match=r"gave no batch(.|\n)*drop_last"):
        fit(empty)


class Iterable(IterableDataset[Any]):
    def __init__(self, samples: int, said: int) -> None:
        self.samples, self.said = samples, said

    def __iter__(self) -> Iterator[Any]:
        yield from zip(*digits(self.samples), strict=True)

    def __len__(self) -> int:
        return self.said


@pytest.mark.filterwarnings("ignore:Length of IterableDataset")
@pytest.mark.parametrize(("samples", "said"), [(16, 32), (32, 16)])
def test_an_iterable_with_a_wrong_length_trains_on_what_it_gives_and_it_is_said(
    samples: int, said: int, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(DataLoader(Iterable(samples, said), 8))
    assert run.progress.batches == samples // 8
    words = f"the loader says {said // 8} batches and gave {samples // 8}"
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_steps": 5, "overfit_batches": 2}, "overfit_batches and max_steps are both given"),
        ({"limit_train_batches": 3, "overfit_batches": 2}, "overfit_batches and limit_train_b"),
        ({"barebones": True, "logger": "csv"}, "barebones and logger are both given"),
        ({"min_epochs": 5, "max_epochs": 2}, "min_epochs=5"),
        ({"min_steps": 5, "max_steps": 2}, "min_steps=5"),
        ({"validate_every": "5 steps", "val_check_interval": 3}, "validate_every and val_check"),
        ({"log_every": "5 steps", "log_every_n_steps": 3}, "log_every and log_every_n_steps"),
        ({"logger": ["csv", "csv"]}, "two CSV loggers would write one file"),
        ({"max_epochs": -5}, "max_epochs=-5"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches=0"),
    ],
)
def test_options_that_contradict_each_other_are_refused_when_the_trainer_is_made(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(RenshuError, match=said):
        trainer(**{"max_epochs": None} | options)
