"""The model and how it learns."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from renshu import Module
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from {{ cookiecutter.__package }}.data import TableData


@dataclass(kw_only=True)
class ModelOptions:
    """Which network.

    Attributes:
        width: units of the hidden layer.
        dropout: share of them set to zero in training.
    """

    width: int = 64
    dropout: float = 0.1


@dataclass(kw_only=True)
class TrainingOptions:
    """How it learns.

    Attributes:
        learning_rate: of AdamW.
        weight_decay: pull of the weights towards 0.
    """

    learning_rate: float = 3e-3
    weight_decay: float = 0.01


class Classifier(Module):
    """A small network over normalised numbers; mean and deviation are part of the model.

    Args:
        classes: names, in the order of the logits.
        mean: of each column in training.
        std: of each column.
        width: units of the hidden layer.
        dropout: share of them set to zero in training.
        learning_rate: of AdamW.
        weight_decay: pull of the weights towards 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        mean: Sequence[float],
        std: Sequence[float],
        width: int,
        dropout: float,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.classes = list(classes)
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        hidden = nn.Sequential(nn.Linear(len(mean), width), nn.ReLU(), nn.Dropout(dropout))
        self.net = nn.Sequential(hidden, nn.Linear(width, len(classes)))

    def forward(self, rows: Tensor) -> Tensor:
        """Rows [B, F] as they are in the table → logits [B, K]."""
        return self.net((rows - self.mean) / self.std)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        rows, labels = batch
        loss = cross_entropy(self(rows), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.measure(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.measure(batch, "test")

    def measure(self, batch: tuple[Tensor, Tensor], part: str) -> None:
        """Log loss and accuracy of one part."""
        rows, labels = batch
        logits = self(rows)
        self.log(f"{part}_loss", cross_entropy(logits, labels), prog_bar=True)
        self.log(f"{part}_accuracy", (logits.argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        rate, decay = self.hparams.learning_rate, self.hparams.weight_decay
        return torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=decay)


def build(data: TableData, model: ModelOptions, training: TrainingOptions) -> Classifier:
    """The classifier for these data; mean and deviation are those of the training part."""
    rows = data.rows[data.parts["train"]]
    mean, std = rows.mean(0).tolist(), rows.std(0).clamp(min=1e-6).tolist()
    return Classifier(data.classes, mean, std, **vars(model), **vars(training))
