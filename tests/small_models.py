"""Small real models on the digits that scikit-learn ships, for every test of the trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import renshu


def digits(n: int = 96) -> tuple[Tensor, Tensor]:
    """images [n, 64] float32 in [0, 1], labels [n] int64"""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.data[:n] / 16, dtype=torch.float32)
    return images, torch.tensor(found.target[:n])


def loader(n: int = 96, batch_size: int = 8, shuffle: bool = True, **kwargs: Any) -> DataLoader:
    return DataLoader(TensorDataset(*digits(n)), batch_size=batch_size, shuffle=shuffle, **kwargs)


class Classifier(renshu.Module):
    """A small network on digits; tests override what they look at."""

    def __init__(self, lr: float = 0.1, seed: int = 0):
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        self.log("val_loss", cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def trainer(**options: Any) -> renshu.Trainer:
    """A quiet trainer that writes nothing unless told to."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "seed": 0,
        "max_epochs": 1,
    }
    return renshu.Trainer(**{**quiet, **options})


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    """Bit-equal."""
    return len(first) == len(second) and all(
        torch.equal(a, b) for a, b in zip(first, second, strict=True)
    )
