"""A NaN stops the run at once, says where, and is never saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from renshu.checkpoints import listing, newest
from renshu.errors import NonFiniteError
from renshu.weights import read_state
from small_models import Classifier, loader, trainer


class Diverges(Classifier):
    def __init__(self, at: int, value: float = float("nan"), how: str = "loss"):
        super().__init__()
        self.at, self.value, self.how = at, value, how

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        if self.global_step != self.at:
            return loss
        if self.how == "loss":
            return loss * self.value
        return loss + (self.net[0].weight * 0).sqrt().sum()  # finite, with an infinite gradient


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_message_names_step_last_good_checkpoint_and_what_to_try(value: float) -> None:
    run = trainer(enable_checkpointing=True, max_epochs=5, run="a")
    with pytest.raises(NonFiniteError) as caught:
        run.fit(Diverges(30, value), loader())
    text = str(caught.value)
    assert "at optimiser step 30" in text
    assert f"{Path('runs/a/checkpoints/step=000024').absolute()}" in text
    assert "learning rate" in text
    assert caught.value.exit_code == 1


def test_nothing_non_finite_is_saved() -> None:
    run = trainer(enable_checkpointing=True, max_epochs=5, run="a")
    with pytest.raises(NonFiniteError):
        run.fit(Diverges(30), loader())
    for path, _ in listing(Path("runs/a/checkpoints")):
        assert all(torch.isfinite(w).all() for w in read_state(path)["state_dict"].values())
    assert newest(Path("runs/a/checkpoints")) is not None


def test_an_infinite_gradient_norm_is_named() -> None:
    run = trainer(gradient_clip_val=1.0)
    with pytest.raises(NonFiniteError, match="gradient norm became"):
        run.fit(Diverges(5, how="gradient"), loader())


def test_broken_weights_are_not_saved_even_when_the_last_loss_was_finite() -> None:
    run = trainer(enable_checkpointing=True, max_epochs=1)
    with pytest.raises(NonFiniteError, match="parameter is NaN"):
        run.fit(Diverges(11, how="gradient"), loader())


def test_ignore_goes_on() -> None:
    run = trainer(on_nonfinite="ignore")
    run.fit(Diverges(5), loader())
    assert run.global_step == 12
