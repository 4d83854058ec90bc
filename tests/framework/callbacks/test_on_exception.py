"""OnExceptionCheckpoint: what is saved when training fails, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from renshu.callbacks import OnExceptionCheckpoint
from renshu.errors import ConfigError, NonFiniteError
from small_models import Classifier, equal, loader, trainer, weights


class Fails(Classifier):
    """Fails in the batch after `at` steps."""

    at: int | None = None
    error: type[BaseException] = RuntimeError

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.global_step == self.at:
            raise self.error
        return super().training_step(batch, batch_idx)


def fit(folder: Path, module: Fails, **how: Any) -> OnExceptionCheckpoint:
    saver = OnExceptionCheckpoint(folder, "fault")
    trainer(callbacks=[saver], max_epochs=2).fit(module, loader(48), **how)
    return saver


# capabilities E
def test_a_run_goes_on_exactly_where_it_failed(tmp_path: Path) -> None:
    whole, failing, resumed = Fails(), Fails(), Fails()
    fit(tmp_path, whole)
    failing.at = 8
    with pytest.raises(RuntimeError):
        fit(tmp_path, failing)
    path = tmp_path / "fault.ckpt"
    assert path.is_dir()
    saver = fit(tmp_path, resumed, ckpt_path=path)
    assert equal(weights(resumed), weights(whole))
    assert saver.ckpt_path == str(path)
    assert not path.exists()  # it ended well


def test_nothing_is_saved_before_training_or_of_numbers_that_are_none(tmp_path: Path) -> None:
    early, later, other = Fails(), Fails(), Fails()
    early.at = 0
    with pytest.raises(RuntimeError):
        fit(tmp_path, early)
    with torch.no_grad():
        later.net[0].bias[0] = torch.nan
    with pytest.raises(NonFiniteError):
        fit(tmp_path, later)
    saver = OnExceptionCheckpoint(tmp_path)
    run = trainer(callbacks=[saver])
    run.fit(other, loader(16))
    with pytest.raises(ConfigError):
        run.test(other, loader(8))
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_needed() -> None:
    with pytest.raises(ConfigError, match="filename"):
        OnExceptionCheckpoint("", "")
