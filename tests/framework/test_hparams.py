"""Hyper-parameters: plain values, saved with the model, refused by name when they are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import renshu
from renshu.errors import CheckpointError, ConfigError
from small_models import Classifier, equal, loader, trainer, weights


def saved(module: renshu.Module) -> Path:
    run = trainer(enable_checkpointing=True)
    run.fit(module, loader(16))
    return Path(run.checkpoint_callback.best_model_path)


def test_a_module_comes_back_with_its_arguments_and_weights() -> None:
    module = Classifier(lr=0.25, seed=3)
    again = Classifier.load_from_checkpoint(saved(module))
    assert dict(again.hparams) == {"lr": 0.25, "seed": 3}
    assert equal(weights(module), weights(again))
    assert Classifier.load_from_checkpoint(saved(module), lr=0.5).hparams.lr == 0.5


class Parent(renshu.Module):
    def __init__(self, width: int, *, depth: int = 2, **rest: Any):
        super().__init__()
        self.save_hyperparameters(ignore="depth")


class Child(Parent):
    def __init__(self, width: int, name: str = "x"):
        super().__init__(width, depth=5, extra=1)


def test_arguments_of_sub_classes_and_keywords_are_found() -> None:
    assert dict(Child(7).hparams) == {"width": 7, "name": "x", "extra": 1}


# pains/trainer.md rows 6 and 37
def test_what_cannot_be_saved_is_refused_by_name_when_the_module_is_made() -> None:
    class Holds(renshu.Module):
        def __init__(self, loss: Any = None, table: Any = None):
            super().__init__()
            self.save_hyperparameters()

    with pytest.raises(ConfigError, match=r"hyper-parameter .*loss") as caught:
        Holds(loss=lambda x: x)
    assert "ignore=['loss']" in str(caught.value)
    with pytest.raises(ConfigError, match="takes 8,0"):
        Holds(table=torch.zeros(1_000_000, dtype=torch.float64))


def test_a_module_among_the_arguments_is_left_out_with_one_message_and_named_at_loading() -> None:
    class Wraps(Classifier):
        def __init__(self, backbone: nn.Module):
            renshu.Module.__init__(self)
            self.save_hyperparameters()
            self.net = backbone

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    with pytest.warns(UserWarning, match="backbone is an nn.Module"):
        path = saved(Wraps(nn.Sequential(nn.Linear(64, 10))))
    with pytest.raises(ConfigError, match=r"needs arguments .* backbone"):
        Wraps.load_from_checkpoint(path)
    with pytest.warns(UserWarning, match="backbone is an nn.Module"):
        again = Wraps.load_from_checkpoint(path, backbone=nn.Sequential(nn.Linear(64, 10)))
    assert again.net[0].weight.shape == (10, 64)


def test_another_architecture_lists_what_differs() -> None:
    path = saved(Classifier())

    class Wider(Classifier):
        def __init__(self, **given: Any):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
            self.head = nn.Linear(10, 2)

    with pytest.raises(CheckpointError) as caught:
        Wider.load_from_checkpoint(path)
    assert "head.weight: only in the module" in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        Wider.load_from_checkpoint(path, strict=False)
    assert "net.0.weight: [16, 64] in the checkpoint, [32, 64] in the module" in str(caught.value)


def test_a_data_modules_arguments_are_saved_too() -> None:
    class Data(renshu.DataModule):
        def __init__(self, size: int = 8):
            self.save_hyperparameters()

        def train_dataloader(self) -> Any:
            return loader(16, batch_size=self.hparams.size)

    from renshu.weights import read_state

    run = trainer(enable_checkpointing=True)
    run.fit(Classifier(), datamodule=Data(4))
    state = read_state(run.checkpoint_callback.best_model_path)
    assert state["datamodule_hyper_parameters"] == {"size": 4}
