"""BaseFinetuning and BackboneFinetuning: what is frozen, what joins the optimiser, and when."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from renshu.callbacks import BackboneFinetuning, BaseFinetuning
from renshu.errors import ConfigError
from small_models import Classifier, loader, trainer


class Parts(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(64, 8), nn.BatchNorm1d(8))
        self.net = nn.Sequential(self.backbone, nn.ReLU(), nn.Linear(8, 10))

    def configure_optimizers(self) -> Any:
        self.at_start = [n for n, p in self.named_parameters() if p.requires_grad]
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


class Stepwise(BaseFinetuning):
    """The backbone in the second epoch; notes rates and weights of every epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.rates: list[list[float]] = []
        self.weights: list[torch.Tensor] = []

    def freeze_before_training(self, module: Any) -> None:
        self.freeze(module.backbone, train_bn=False)

    def finetune_function(self, module: Any, epoch: int, optimizer: Any) -> None:
        if epoch == 1:
            self.unfreeze_and_add_param_group(module.backbone, optimizer, train_bn=False)

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
        self.weights.append(module.backbone[0].weight.detach().clone())


# capabilities E
def test_a_part_is_frozen_before_the_optimiser_is_made_and_joins_it_later() -> None:
    module, fine = Parts(), Stepwise()
    before = module.backbone[0].weight.detach().clone()
    trainer(max_epochs=3, callbacks=[fine]).fit(module, loader(32))
    assert module.at_start == ["net.2.weight", "net.2.bias"]
    assert fine.rates == [[0.1], [0.1, 0.01], [0.1, 0.01]]
    assert torch.equal(fine.weights[0], before)
    assert not torch.equal(fine.weights[1], before)
    assert module.backbone[1].track_running_stats
    second = module.trainer.optimizers[0].param_groups[1]["params"]
    assert [id(p) for p in second] == [id(p) for p in module.backbone[0].parameters()]


def test_gradients_of_parameters_that_joined_are_zeroed() -> None:
    """Their last gradient is that of one batch alone, not of all batches since they joined."""
    module = Parts()
    data = loader(32, batch_size=8, shuffle=False)
    run = trainer(max_epochs=2, callbacks=[Stepwise()])
    held: list[torch.Tensor] = []

    class Keeps(type(module)):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            held[:] = [self.backbone[0].weight.grad]  # type: ignore[list-item]
            weights = {n: w.detach().clone() for n, w in self.state_dict().items()}
            self.before = weights

    module.__class__ = Keeps
    run.fit(module, data)
    alone = Parts()
    alone.load_state_dict(module.before)
    alone.training_step(list(data)[-1], 0).backward()
    assert torch.allclose(held[0], alone.backbone[0].weight.grad, atol=1e-6)  # type: ignore


def test_the_tools_tell_modules_and_parameters_apart() -> None:
    part = Parts().backbone
    tools = BaseFinetuning
    assert tools.flatten_modules([part, [nn.ModuleDict({"a": part[0]})]]) == [*part, part[0]]
    tools.freeze(part)
    assert [p.requires_grad for p in part.parameters()] == [False, False, True, True]
    assert list(tools.filter_params(part, train_bn=False)) == []
    assert len(list(tools.filter_params(part))) == 2
    tools.freeze(part, train_bn=False)
    assert len(list(tools.filter_params(part, requires_grad=False))) == 4
    assert not part[1].track_running_stats
    tools.make_trainable(part)
    assert all(p.requires_grad for p in part.parameters())


def test_parameters_that_the_optimiser_has_are_left_out_and_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Everything(Parts):
        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    module = Everything()
    trainer(max_epochs=2, callbacks=[Stepwise()]).fit(module, loader(16))
    assert len(module.trainer.optimizers[0].param_groups) == 1
    assert "2 unfrozen parameters stay" in capfd.readouterr().err


def test_a_module_without_backbone_is_refused() -> None:
    with pytest.raises(ConfigError, match="Classifier.backbone"):
        trainer(callbacks=[BackboneFinetuning()]).fit(Classifier(), loader(8))


def test_the_rates_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    fine = BackboneFinetuning(1, lambda epoch: 3.0, verbose=True, rounding=4)
    trainer(max_epochs=5, callbacks=[fine]).fit(Parts(), loader(16))
    lines = [line for line in capfd.readouterr().err.splitlines() if "rates" in line]
    ends = ["0.01", "0.03", "0.09", "0.1"]  # three times more, but never above the rest's
    assert lines == [f"renshu: rates: 0.1, backbone {end}" for end in ends]
