"""A tiny regression on real numbers of a fixed seed, for tests that need a whole fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from renshu import Module, Trainer


def loader(samples: int = 32, batch_size: int = 8, shuffle: bool = True) -> DataLoader[Any]:
    """Four inputs, one target that is a linear function of them."""
    generator = torch.Generator().manual_seed(7)
    inputs = torch.randn(samples, 4, generator=generator)
    targets = inputs @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])
    return DataLoader(TensorDataset(inputs, targets), batch_size=batch_size, shuffle=shuffle)


class Tiny(Module):
    """Linear → batch norm → linear, trained by SGD."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 1))
        self.lr = lr

    def loss(self, batch: list[Tensor]) -> Tensor:
        return (self.net(batch[0]) - batch[1]).pow(2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def trainer(folder: Path, *callbacks: Any, **options: Any) -> Trainer:
    """A quiet Trainer on the CPU that writes below `folder`, in the run "run"."""
    quiet: dict[str, Any] = {
        "accelerator": "cpu",
        "default_root_dir": str(folder),
        "run": "run",
        "seed": 3,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "callbacks": list(callbacks),
    }
    return Trainer(**(quiet | options))
