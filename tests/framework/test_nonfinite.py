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


class Spoiled(Classifier):
    """NaN losses at some batches of the whole fit."""

    def __init__(self, *batches: int) -> None:
        super().__init__()
        self.batches = batches

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        number = self.trainer.progress.batches
        return loss * float("nan") if number in self.batches else loss


def test_skip_leaves_out_the_step_alone(capsys: pytest.CaptureFixture[str]) -> None:
    module, run = Spoiled(3, 7), trainer(max_epochs=1, on_nonfinite="skip")
    run.fit(module, loader(96, shuffle=False))

    steps = len(loader(96, shuffle=False))
    assert run.progress.skipped == 2
    assert run.global_step == steps - 2
    assert all(torch.isfinite(p).all() for p in module.parameters())
    said = capsys.readouterr().err
    assert "step 3 is left out" in said and "step 6 is left out" in said


def test_skip_trains_as_if_the_batches_were_not_there() -> None:
    batches = list(loader(96, shuffle=False))
    spoiled, clean = Spoiled(3, 7), Spoiled()
    clean.load_state_dict(spoiled.state_dict())
    trainer(max_epochs=1, on_nonfinite="skip").fit(spoiled, batches)
    trainer(max_epochs=1).fit(clean, [b for n, b in enumerate(batches) if n not in (3, 7)])
    for name, weight in clean.state_dict().items():
        assert torch.equal(weight, spoiled.state_dict()[name]), name


def test_rollback_goes_on_from_the_newest_checkpoint_without_the_batches_since(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from renshu.callbacks import ModelCheckpoint

    batches = list(loader(96, shuffle=False))
    spoiled, clean = Spoiled(6), Spoiled()
    clean.load_state_dict(spoiled.state_dict())
    run = trainer(
        max_epochs=1, on_nonfinite="rollback", log_every_n_steps=1, enable_checkpointing=True,
        callbacks=[ModelCheckpoint(every="4 steps")], run="a",
    )  # fmt: skip
    run.fit(spoiled, batches)
    # Saved after batch 3 and thrown back at batch 6: those from 4 to 6 have no part in the weights.
    trainer(max_epochs=1).fit(clean, [b for n, b in enumerate(batches) if n not in (4, 5, 6)])
    for name, weight in clean.state_dict().items():
        assert torch.equal(weight, spoiled.state_dict()[name]), name
    assert "back to step=000004; the batches since are left out" in capsys.readouterr().err


def test_rollback_ends_where_it_does_not_help() -> None:
    run = trainer(
        max_epochs=9, on_nonfinite="rollback", log_every_n_steps=1, enable_checkpointing=True
    )
    with pytest.raises(NonFiniteError, match="loss became nan"):
        run.fit(Spoiled(*range(20, 1000)), loader(96))
    assert run.progress.batches < 40


def test_rollback_without_a_checkpoint_is_the_error() -> None:
    run = trainer(on_nonfinite="rollback", log_every_n_steps=1)
    with pytest.raises(NonFiniteError, match="at optimiser step 2"):
        run.fit(Spoiled(2), loader(96))
