"""Callbacks that change training give the weights that Lightning's of the same name give."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import get_ema_multi_avg_fn

import renshu
import renshu.callbacks
from small_models import loader

lightning = pytest.importorskip("pytorch_lightning", reason="needs renshu[parity]")
for _name in ("pytorch_lightning", "lightning_fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)


def network(pl: Any, norm: bool = False) -> Any:
    """A backbone and a head, of one of the two packages; scheduled by epoch."""

    class Net(pl.LightningModule if pl is lightning else pl.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            middle = nn.BatchNorm1d(12) if norm else nn.Identity()
            self.backbone = nn.Sequential(nn.Linear(64, 12), middle, nn.ReLU())
            self.head = nn.Linear(12, 10)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return cross_entropy(self.head(self.backbone(batch[0])), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.training_step(batch, batch_idx))

        def configure_optimizers(self) -> Any:
            parameters = [p for p in self.parameters() if p.requires_grad]
            optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]

    return Net()


def trained(pl: Any, callback: Callable[[Any], Any], norm: bool = False, **options: Any) -> Any:
    """The state after a fit of 6 epochs of 6 batches, validated once an epoch."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "max_epochs": 6,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    if pl is renshu:
        quiet["seed"] = 0
    module = network(pl, norm)
    with warnings.catch_warnings():
        if pl is lightning:
            warnings.simplefilter("ignore")
        trainer = pl.Trainer(**quiet | options, callbacks=[callback(pl.callbacks)])
        trainer.fit(module, loader(48, shuffle=False), loader(16, shuffle=False))
    return module.state_dict()


@cache
def without(norm: bool = False) -> Any:
    return trained(renshu, lambda callbacks: callbacks.Callback(), norm)


def check(callback: Callable[[Any], Any], **how: Any) -> None:
    theirs, ours = trained(lightning, callback, **how), trained(renshu, callback, **how)
    assert ours.keys() == theirs.keys()
    # Buffers that are no floating-point numbers are averaged there, and current here.
    for name, value in ((n, v) for n, v in ours.items() if v.is_floating_point()):
        assert torch.allclose(value.double(), theirs[name].double(), rtol=1e-6, atol=1e-6), name
    plain = without(**how)
    assert ours.keys() != plain.keys() or any(
        not torch.allclose(value, plain[name], atol=1e-3) for name, value in ours.items()
    )


# capabilities E
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {"swa_lrs": 0.05, "swa_epoch_start": 0.5, "annealing_epochs": 2},
        {"swa_lrs": [0.02], "swa_epoch_start": 2, "annealing_strategy": "linear"},
        {"swa_lrs": 0.3, "annealing_epochs": 0, "device": None},
        {"swa_lrs": 0.05, "swa_epoch_start": 1, "avg_fn": lambda mean, new, _: (mean + new) / 2},
    ],
)
def test_stochastic_weight_averaging(arguments: dict[str, Any], norm: bool) -> None:
    check(lambda callbacks: callbacks.StochasticWeightAveraging(**arguments), norm=norm)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"multi_avg_fn": get_ema_multi_avg_fn(0.8)},
        {"avg_fn": lambda mean, new, count: mean + (new - mean) * 2 / (count + 2)},
    ],
)
def test_weight_averaging(arguments: dict[str, Any], norm: bool) -> None:
    check(lambda callbacks: callbacks.WeightAveraging(use_buffers=True, **arguments), norm=norm)


def test_weight_averaging_by_epochs() -> None:
    def make(callbacks: Any) -> Any:
        class Late(callbacks.WeightAveraging):
            def should_update(self, step_idx: Any = None, epoch_idx: Any = None) -> bool:
                return epoch_idx is not None and epoch_idx > 1

        return Late()

    check(make)


def test_ema_under_its_name_there() -> None:
    check(lambda callbacks: callbacks.EMAWeightAveraging(decay=0.8, update_every_n_steps=2))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    "arguments",
    [
        {"unfreeze_backbone_at_epoch": 2},
        {"unfreeze_backbone_at_epoch": 1, "lambda_func": lambda e: 1.5, "should_align": False},
        {"unfreeze_backbone_at_epoch": 3, "backbone_initial_lr": 0.05, "train_bn": False},
        {"unfreeze_backbone_at_epoch": 10},
    ],
)
def test_backbone_finetuning(arguments: dict[str, Any], norm: bool) -> None:
    check(lambda callbacks: callbacks.BackboneFinetuning(**arguments), norm=norm)


@pytest.mark.parametrize("scheduling", [{0: 2}, {1: 3, 4: 6}])
def test_gradient_accumulation_scheduler(scheduling: dict[int, int]) -> None:
    # Numbers that divide the 6 batches: Lightning takes a shorter last window for a whole one.
    check(lambda callbacks: callbacks.GradientAccumulationScheduler(dict(scheduling)))


# One reset only: there a second one finds the initial weights overwritten by training. Nothing at
# random: making an iterator of a loader draws from the global generator there.
@pytest.mark.parametrize(
    "arguments",
    [
        {"amount": 0.1, "use_lottery_ticket_hypothesis": False},
        {"amount": 20, "parameter_names": ["weight"],
         "use_lottery_ticket_hypothesis": lambda epoch: epoch == 2},
        {"use_global_unstructured": False, "amount": lambda epoch: 0.1 * epoch,
         "use_lottery_ticket_hypothesis": lambda epoch: epoch == 1},
        {"pruning_fn": "ln_structured", "use_global_unstructured": False, "pruning_dim": 0,
         "pruning_norm": 1, "parameter_names": ["weight"], "apply_pruning": lambda e: e % 2 == 0,
         "amount": 1, "use_lottery_ticket_hypothesis": False},
        {"pruning_fn": torch.nn.utils.prune.L1Unstructured, "make_pruning_permanent": False},
    ],
)  # fmt: skip
def test_model_pruning(arguments: dict[str, Any]) -> None:
    given = {"pruning_fn": "l1_unstructured", "use_lottery_ticket_hypothesis": False} | arguments
    check(lambda callbacks: callbacks.ModelPruning(**given))
