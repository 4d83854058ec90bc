"""LambdaCallback: functions as hooks."""

from __future__ import annotations

import inspect

import pytest

from renshu.callbacks import LambdaCallback
from renshu.errors import ConfigError
from small_models import Classifier, loader, trainer


# capabilities E
def test_each_function_is_called_at_its_hook_with_its_arguments() -> None:
    calls: list[tuple[str, int]] = []

    def noting(name: str):
        return lambda *given: calls.append((name, len(given)))

    names = ("setup", "on_fit_start", "on_train_batch_end", "on_validation_end", "teardown")
    callback = LambdaCallback(**{name: noting(name) for name in names}, on_fit_end=None)
    trainer(callbacks=[callback], num_sanity_val_steps=0).fit(Classifier(), loader(16), loader(8))
    batch = ("on_train_batch_end", 5)
    ends = [("on_validation_end", 2), ("teardown", 3)]
    assert calls == [("setup", 3), ("on_fit_start", 2), batch, batch, *ends]


def test_a_name_that_is_no_hook_is_refused() -> None:
    with pytest.raises(ConfigError, match="on_train_batch_end"):
        LambdaCallback(on_train_batch_ends=print)


def test_it_takes_every_hook_of_lightnings() -> None:
    lightning = pytest.importorskip("pytorch_lightning", reason="needs renshu[parity]")
    names = inspect.signature(lightning.callbacks.LambdaCallback).parameters
    LambdaCallback(**dict.fromkeys(names, print))
