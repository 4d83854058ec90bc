"""Callbacks that change training: killed and resumed anywhere, a run ends as if never stopped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from killing import Net, Noisy, fit, in_child, killed_and_resumed, same
from renshu.callbacks import (
    BackboneFinetuning,
    GradientAccumulationScheduler,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)

BATCHES = 6
"""Of an epoch; a fit has 5 epochs."""


class Scheduled(Net):
    """With batch norm, and a scheduler by epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(), nn.Linear(5, 1))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.002, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


class WithBackbone(Net):
    """A batch norm in the backbone; only what requires gradients goes to the optimiser."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
        self.head = nn.Linear(4, 1)
        self.net = nn.Sequential(self.backbone, nn.Dropout(0.2), self.head)

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(parameters, lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class ByEpoch(WeightAveraging):
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= 1


def weighted(average: Any, weight: Any, count: Any) -> Any:
    return average + (weight - average) * 2 / (count + 2)


CASES: dict[str, tuple[Callable[[], Any], type[Net]]] = {
    "averaging": (WeightAveraging, Scheduled),
    "averaging by a function": (lambda: WeightAveraging(avg_fn=weighted, device="cpu"), Net),
    "averaging by epoch": (ByEpoch, Scheduled),
    "stochastic averaging": (
        lambda: StochasticWeightAveraging(0.004, 3, annealing_epochs=2),
        Scheduled,
    ),
    "finetuning": (lambda: BackboneFinetuning(2, lambda epoch: 1.5), WithBackbone),
    "finetuning without norms": (
        lambda: BackboneFinetuning(1, train_bn=False, backbone_initial_lr=1e-3),
        WithBackbone,
    ),
    "accumulation": (lambda: GradientAccumulationScheduler({1: 2, 3: 4}), Net),
    "pruning": (lambda: ModelPruning("l1_unstructured", amount=0.2), Net),
    "pruning at random, new weights": (
        lambda: ModelPruning("random_unstructured", amount=2, resample_parameters=True),
        Net,
    ),
    "pruning rows of each layer": (
        lambda: ModelPruning(
            "ln_structured", parameter_names=["weight"], use_global_unstructured=False, amount=0.3,
            pruning_dim=1, pruning_norm=2, use_lottery_ticket_hypothesis=False,
            make_pruning_permanent=False, apply_pruning=lambda epoch: epoch != 1,
        ),
        Net,
    ),
}  # fmt: skip


def run(**given: Any) -> Any:
    return fit(**{"max_epochs": 5, **given})


@cache
def whole(case: str) -> Any:
    callback, module = CASES[case]
    return in_child(lambda: run(module=module, callbacks=lambda: [callback()], run="whole"))


# capabilities E
@pytest.mark.parametrize("save", [BATCHES, 2 * BATCHES + 1, 3 * BATCHES + 2])
@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_ends_bit_equal(case: str, save: int) -> None:
    callback, module = CASES[case]
    again = killed_and_resumed(save, run=run, module=module, callbacks=lambda: [callback()])
    assert same(whole(case), again)


@pytest.mark.parametrize("case", CASES)
def test_the_callback_changes_the_result(case: str) -> None:
    """What the test above compares is not simply training without the callback."""
    _, module = CASES[case]
    assert not same(whole(case), in_child(lambda: run(module=module, run="plain")))


def test_a_run_saved_in_its_epochs_first_batch_starts_it_once(tmp_path: Path) -> None:
    """The rate of the backbone grows once in that epoch, though its start is called again."""
    from small_models import trainer

    class Fails(WithBackbone):
        fails = True

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.fails and self.current_epoch == 3:
                self.trainer.save_checkpoint(tmp_path / "here")
                raise RuntimeError
            return super().training_step(batch, batch_idx)

    def rate(module: WithBackbone) -> float:
        return module.trainer.optimizers[0].param_groups[-1]["lr"]

    def going(module: WithBackbone, **how: Any) -> float:
        data = torch.utils.data.DataLoader(Noisy(), batch_size=4)
        fine = BackboneFinetuning(1, lambda epoch: 2.0, backbone_initial_lr=1e-5)
        trainer(max_epochs=5, callbacks=[fine]).fit(module, data, **how)
        return rate(module)

    straight, failing, resumed = Fails(), Fails(), Fails()
    straight.fails = resumed.fails = False
    expected = going(straight)
    with pytest.raises(RuntimeError):
        going(failing)
    assert going(resumed, ckpt_path=tmp_path / "here") == expected == 1e-5 * 2**3
