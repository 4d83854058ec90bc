"""SpikeDetection: what counts as a spike, and what happens then."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from renshu.callbacks import ModelCheckpoint, SpikeDetection
from renshu.errors import ConfigError, NonFiniteError
from small_models import Classifier, loader, trainer


class Jumps(Classifier):
    """Its loss is multiplied in some batches of its life."""

    def __init__(self, *at: int, factor: float = 30.0):
        super().__init__()
        self.at, self.factor, self.seen = at, factor, 0

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.seen += 1
        return loss * self.factor if self.seen - 1 in self.at else loss


# capabilities C5
def test_a_jump_of_the_loss_ends_the_fit_with_batch_loss_and_mean() -> None:
    with pytest.raises(NonFiniteError, match=r"jumped to \d+\.?\d* at batch 6 of the fit, from"):
        trainer(callbacks=[SpikeDetection()]).fit(Jumps(5), loader(96))


def test_what_is_no_spike_trains_to_the_same_weights() -> None:
    plain, watched = Classifier(), Classifier()
    trainer(max_epochs=2).fit(plain, loader(96))
    trainer(max_epochs=2, callbacks=[SpikeDetection()]).fit(watched, loader(96))
    for name, weight in plain.state_dict().items():
        assert torch.equal(weight, watched.state_dict()[name]), name


def test_nothing_from_after_a_spike_is_saved_and_rollback_goes_on_before_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    batches = list(loader(96, shuffle=False))
    spoiled, clean = Jumps(6), Classifier()
    run = trainer(
        on_nonfinite="rollback", enable_checkpointing=True, run="a",
        callbacks=[SpikeDetection(), ModelCheckpoint(every="4 steps")],
    )  # fmt: skip
    run.fit(spoiled, batches)
    # Saved after batch 3; the save after batch 7 looks, finds batch 6 and goes back.
    trainer().fit(clean, [batch for n, batch in enumerate(batches) if n not in (4, 5, 6, 7)])
    for name, weight in clean.state_dict().items():
        assert torch.equal(weight, spoiled.state_dict()[name]), name
    assert "back to step=000004" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("losses", "settings", "spike"),
    [
        ([1, 1, 1, 2.9], {}, False),  # up to twice the mean away
        ([1, 1, 1, 3.1], {}, True),
        ([1, 1, 1, 3.1], {"mode": "max"}, False),
        ([8, 8, 8, -9], {"mode": "max"}, True),
        ([1, 1, 1, 3.1], {"atol": 5.0}, False),
        ([1, 1, 1, 6.1], {"atol": 5.0, "rtol": None}, True),
        ([1, 9, 9, 1], {"warmup": 2, "window": 1}, False),
        ([0.1, 0.1, 4, 4], {"warmup": 3}, False),
        ([1, 1, math.nan], {}, True),
        ([1, 1, math.inf, 1], {"finite_only": False}, False),
    ],
)
def test_what_counts_as_a_spike(losses: list[float], settings: Any, spike: bool) -> None:
    class Given(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) * 0 + losses[batch_idx]

    callback = SpikeDetection(**settings)
    run = trainer(callbacks=[callback], on_nonfinite="ignore")
    if spike:
        with pytest.raises(NonFiniteError):
            run.fit(Given(), loader(8 * len(losses)))
    else:
        run.fit(Given(), loader(8 * len(losses)))
        assert callback.state_dict()["seen"] == len(losses)


def test_the_losses_are_read_fifty_at_a_time() -> None:
    reads: list[int] = []

    class Counted(SpikeDetection):
        def _look(self, trainer: Any) -> None:
            reads.append(len(self._waiting))
            super()._look(trainer)

    trainer(callbacks=[Counted()], max_epochs=2).fit(Classifier(), loader(480))
    assert reads == [50, 10, 50, 10]  # the second save of an epoch finds nothing waiting


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"mode": "least"}, "mode"), ({"atol": None, "rtol": None}, "atol or rtol")],
)
def test_wrong_settings_are_named(settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SpikeDetection(**settings)
