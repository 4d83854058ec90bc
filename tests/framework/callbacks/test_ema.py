"""The averaged weights: the numbers of torch's AveragedModel, used and saved where they say."""

from __future__ import annotations

import copy
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import tiny
from renshu import Callback
from renshu.callbacks import EMA
from renshu.errors import ConfigError


class Reference(Callback):
    """torch's own average beside ours, and the weights seen while validating."""

    def __init__(self, decay: float, use_buffers: bool) -> None:
        self.decay, self.use_buffers = decay, use_buffers
        self.validated: list[dict[str, Tensor]] = []
        self.expected: list[dict[str, Tensor]] = []

    def on_train_start(self, trainer: Any, module: Any) -> None:
        update = get_ema_multi_avg_fn(self.decay)
        self.average = AveragedModel(module.net, multi_avg_fn=update, use_buffers=self.use_buffers)

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.average.update_parameters(module.net)

    def on_validation_start(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(copied(module.net))
            self.expected.append(copied(self.average.module))


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def floats(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("use_buffers", [True, False])
def test_it_is_torchs_average_bit_for_bit(tmp_path: Path, use_buffers: bool) -> None:
    ema, reference = EMA(0.9, use_buffers=use_buffers), Reference(0.9, use_buffers)
    module = tiny.Tiny()
    tiny.trainer(tmp_path, ema, reference, max_epochs=3).fit(module, tiny.loader(), tiny.loader())
    assert len(reference.validated) == 3
    names = floats(reference.expected[0]) if use_buffers else dict(module.net.named_parameters())
    for seen, expected in zip(reference.validated, reference.expected, strict=True):
        assert same({n: seen[n] for n in names}, {n: expected[n] for n in names})
    final, expected = copied(module.net), copied(reference.average.module)
    assert same({n: final[n] for n in names}, {n: expected[n] for n in names})


def test_training_goes_on_with_the_plain_weights(tmp_path: Path) -> None:
    class Kept(Callback):
        def __init__(self) -> None:
            self.weights: list[Tensor] = []

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:  # type: ignore
            self.weights.append(module.net[0].weight.detach().clone())

    plain, averaged = Kept(), Kept()
    for folder, callbacks in (("a", [plain]), ("b", [EMA(0.5), averaged])):
        trainer = tiny.trainer(tmp_path / folder, *callbacks, max_epochs=3)
        trainer.fit(tiny.Tiny(), tiny.loader(), tiny.loader())
    pairs = zip(plain.weights, averaged.weights, strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_a_late_start_and_a_stride_of_updates() -> None:
    ema = EMA(0.9, update_every_n_steps=3, update_starting_at_step=4)
    assert [s for s in range(14) if ema.should_update(s, 0)] == [6, 9, 12]
    ema = EMA(0.9, update_starting_at_epoch=2)
    assert [e for e in range(4) if ema.should_update(0, e)] == [2, 3]


def test_before_the_first_update_the_plain_weights_are_used(tmp_path: Path) -> None:
    module, plain = tiny.Tiny(), tiny.Tiny()
    for folder, item, callbacks in (
        ("a", module, [EMA(0.5, update_starting_at_step=1000)]),
        ("b", plain, []),
    ):
        tiny.trainer(tmp_path / folder, *callbacks, max_epochs=2).fit(item, tiny.loader())
    assert same(copied(module), copied(plain))


def test_a_checkpoint_holds_the_average_as_the_model(tmp_path: Path) -> None:
    from renshu.checkpoints import read_weights

    module = tiny.Tiny()
    trainer = tiny.trainer(tmp_path, EMA(0.9), max_epochs=2)
    trainer.fit(module, tiny.loader(), tiny.loader())
    weights = read_weights(trainer.checkpoint_callback.best_model_path)
    assert same(dict(weights), copied(module))


def test_a_resumed_run_ends_bit_equal(tmp_path: Path) -> None:
    whole = tiny.Tiny()
    options: dict[str, Any] = {"max_epochs": 4, "validate_every": "3 steps"}
    tiny.trainer(tmp_path / "whole", EMA(0.9), **options).fit(whole, tiny.loader(), tiny.loader())
    for steps in (5, 6, 11):
        folder = tmp_path / str(steps)
        first = tiny.trainer(folder, EMA(0.9), **options | {"max_steps": steps})
        first.fit(tiny.Tiny(), tiny.loader(), tiny.loader())
        second = tiny.Tiny()
        again = tiny.trainer(folder, EMA(0.9), **options)
        again.fit(second, tiny.loader(), tiny.loader(), ckpt_path="last")
        assert same(copied(second), copied(whole))


def test_saving_while_the_average_is_swapped_in_is_the_same_state(tmp_path: Path) -> None:
    """A signal during a validation saves with the average in the module."""
    states: list[dict[str, Any]] = []

    class Saves(Callback):
        def take(self, trainer: Any, module: Any) -> None:
            if trainer.global_step == 4:
                state = {"state_dict": dict(module.state_dict())}
                ema.on_save_checkpoint(trainer, module, state)
                states.append(copy.deepcopy({**state, "ema": ema.state_dict()}))

        def on_validation_start(self, trainer: Any, module: Any) -> None:
            self.take(trainer, module)

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            self.take(trainer, module)

    ema = EMA(0.9)
    tiny.trainer(tmp_path, ema, Saves(), max_epochs=2).fit(
        tiny.Tiny(), tiny.loader(), tiny.loader()
    )
    inside, outside = states
    assert same(inside["state_dict"], outside["state_dict"])
    assert same(inside["ema"]["weights"], outside["ema"]["weights"])
    assert not same(floats(inside["ema"]["weights"]), floats(inside["state_dict"]))


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    class Tied(tiny.Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 1))
            self.net[2].weight = self.net[0].weight

    from renshu.checkpoints import read_weights

    module = Tied()
    trainer = tiny.trainer(tmp_path, EMA(0.9), max_epochs=2)
    trainer.fit(module, tiny.loader(), tiny.loader())
    assert module.net[2].weight is module.net[0].weight
    weights = read_weights(trainer.checkpoint_callback.best_model_path)
    assert torch.equal(weights["net.0.weight"], module.net[0].weight)
    assert torch.equal(weights["net.2.weight"], module.net[0].weight)
    again = Tied()
    more = tiny.trainer(tmp_path, EMA(0.9), max_epochs=3)
    more.fit(again, tiny.loader(), tiny.loader(), ckpt_path="last")
    assert again.net[2].weight is again.net[0].weight


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="decay"):
        EMA(1.5)
    with pytest.raises(ConfigError, match="update_every_n_steps"):
        EMA(update_every_n_steps=0)


@pytest.mark.parametrize("where", ["training", "validation"])
def test_ctrl_c_anywhere_resumes_bit_equal(tmp_path: Path, where: str) -> None:
    """In a validation the average is in the module when the signal comes."""

    class Interrupted(tiny.Tiny):
        def press(self, stage: str) -> None:
            if stage == where and self.current_epoch == 1:
                os.kill(os.getpid(), signal.SIGINT)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.press("training")
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.press("validation")
            super().validation_step(batch, batch_idx)

    def fit(folder: str, module: tiny.Tiny, ckpt_path: str | None = None) -> Any:
        trainer = tiny.trainer(tmp_path / folder, EMA(0.9), max_epochs=3)
        trainer.fit(module, tiny.loader(), tiny.loader(), ckpt_path=ckpt_path)
        return trainer

    whole, resumed = tiny.Tiny(), tiny.Tiny()
    fit("whole", whole)
    stopped = fit("killed", Interrupted())
    assert stopped.interrupted and stopped.global_step < 12
    fit("killed", resumed, "last")
    assert same(copied(resumed), copied(whole))
