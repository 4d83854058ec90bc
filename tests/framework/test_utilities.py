"""The small tools that Lightning's users know, and the names that lead elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import renshu
from renshu import messages
from renshu.utilities import (
    grad_norm,
    measure_flops,
    move_data_to_device,
    rank_zero_info,
    rank_zero_only,
    suggested_max_num_workers,
)
from small_models import Classifier, digits, loader, trainer


def test_gradient_norms_by_name() -> None:
    module = nn.Linear(2, 1, bias=False)
    module(torch.tensor([[3.0, 4.0]])).sum().backward()
    assert grad_norm(module, 2) == pytest.approx({"grad_2_norm/weight": 5, "grad_2_norm_total": 5})
    assert grad_norm(module, 1)["grad_1_norm_total"] == pytest.approx(7)
    assert grad_norm(nn.Linear(2, 1), 2) == {}
    assert grad_norm(module, math.inf)["grad_inf_norm/weight"] == 4


def test_flops_of_a_linear_layer() -> None:
    module, x = nn.Linear(10, 20), torch.randn(8, 10)
    assert measure_flops(module, lambda: module(x)) == 2 * 8 * 10 * 20
    # Backward: the weight's gradient alone, since the input needs none.
    both = measure_flops(module, lambda: module(x), lambda y: y.sum())
    assert both == 2 * 2 * 8 * 10 * 20


def test_only_the_first_process_speaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called = rank_zero_only(lambda: 7)
    assert called() == 7
    rank_zero_info("first")
    monkeypatch.setattr(messages, "silent", True)
    rank_zero_info("second")
    assert called() is None
    assert capsys.readouterr().err == "renshu: first\n"


def test_data_moves_whatever_its_nesting() -> None:
    moved = move_data_to_device({"a": [torch.ones(2)], "b": 3}, torch.device("meta"))
    assert moved["a"][0].device.type == "meta" and moved["b"] == 3
    assert suggested_max_num_workers(10**6) == 1


def test_a_data_module_from_data_sets() -> None:
    images, labels = digits(40)
    data = renshu.DataModule.from_datasets(
        TensorDataset(images, labels), [TensorDataset(images, labels)] * 2, batch_size=8
    )
    run = trainer(max_epochs=1)
    run.fit(Classifier(), datamodule=data)
    assert run.global_step == 5
    assert [len(part) for part in data.val_dataloader()] == [5, 5]
    assert data.test_dataloader() is None


def test_what_the_trainer_says_of_the_run() -> None:
    run, train, val = trainer(max_epochs=1), loader(16), loader(24)
    assert run.num_val_batches == [] and run.train_dataloader is None
    run.fit(Classifier(), train, val)
    assert run.train_dataloader is train and run.val_dataloaders is val
    assert (run.num_training_batches, run.num_val_batches, run.num_test_batches) == (2, [3], [])
    assert (run.world_size, run.num_devices, run.global_rank, run.local_rank) == (1, 1, 0, 0)
    assert (run.node_rank, run.device_ids, run.received_sigterm) == (0, [0], False)
    with run.init_module():
        assert torch.zeros(1).device == torch.device("cpu")


def test_attributes_of_lightning_that_are_gone_name_what_to_use() -> None:
    with pytest.raises(AttributeError, match=r"fit_loop.*trainer\.progress"):
        _ = trainer().fit_loop


def test_gathering_in_one_process_is_the_tensor() -> None:
    module = Classifier()
    trainer(max_epochs=1).fit(module, loader(8))
    assert module.all_gather({"x": torch.ones(2)})["x"].shape == (2,)
    with module.toggled_optimizer(module.trainer.optimizers[0]):
        assert all(p.requires_grad for p in module.parameters())
