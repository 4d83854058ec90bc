"""Learner: the Module that trains a detector's network, from the command line or by `fit`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renshu.callbacks.callback import Callback
from renshu.module import Module

if TYPE_CHECKING:
    from renshu.trainer import Trainer

Batch = list[Tensor]
"""One Tensor: windows, float32 [B, C, L]."""


class Network(nn.Module, ABC):
    """What a neural detector learns with. A window is float32 [B, C, L], scaled."""

    @abstractmethod
    def errors(self, window: Tensor) -> Tensor:
        """[B, C, L] → [B, C], squared errors: the contributions of the channels to the score."""

    def loss(self, window: Tensor) -> Tensor:
        """[B, C, L] → 0-dim: what training lowers; the mean squared error."""
        return self.errors(window).mean()


class AdversarialNetwork(Network):
    """A network of several players, each with a loss and an optimiser of its own."""

    @abstractmethod
    def losses(self, window: Tensor, epoch: int) -> Sequence[Tensor]:
        """[B, C, L] → a 0-dim loss for each player, at an epoch counted from 0."""

    @abstractmethod
    def players(self) -> Iterable[Iterable[nn.Parameter]]:
        """The parameters that each loss moves."""


class Learner(Module):
    """Lowers a network's loss with Adam; the learning rate falls by steps, as in TSB-AD.

    Args:
        network: of a detector; None for one that learns otherwise.
        learning_rate: at the start; times 0.75 after every 5 epochs.
    """

    def __init__(self, network: Network | None, learning_rate: float) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.automatic_optimization = not isinstance(network, AdversarialNetwork | None)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """→ 0-dim loss; None where the network's players took their own steps."""
        network = self.network
        if not isinstance(network, AdversarialNetwork):
            loss = network.loss(batch[0])
            self.log("train_loss", loss, prog_bar=True)
            return loss
        for player, optimizer in enumerate(self.optimizers()):
            loss = network.losses(batch[0], self.current_epoch)[player]
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.log(f"train_loss_{player + 1}", loss, prog_bar=True)
        return None

    def on_train_epoch_end(self) -> None:
        if isinstance(self.network, AdversarialNetwork):
            for scheduler in self.lr_schedulers():
                scheduler.step()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.network.errors(batch[0]).mean(), prog_bar=True)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """→ contributions of the channels [B, C]."""
        return self.network.errors(batch[0])

    def configure_optimizers(self) -> Any:
        groups = [list(self.network.parameters())]
        if isinstance(self.network, AdversarialNetwork):
            groups = [list(player) for player in self.network.players()]
        optimizers = [torch.optim.Adam(group, lr=self.learning_rate) for group in groups]
        schedulers = [torch.optim.lr_scheduler.StepLR(one, 5, 0.75) for one in optimizers]
        return optimizers, schedulers


class BestWeights(Callback):
    """Keeps the weights of the best validation in memory and puts them back at the end."""

    def __init__(self) -> None:
        self.best = float("inf")
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        loss = float(trainer.callback_metrics["val_loss"])
        if loss < self.best:
            self.best = loss
            self.weights = {name: w.detach().clone() for name, w in module.state_dict().items()}

    def on_fit_end(self, trainer: Trainer, module: Module) -> None:
        if self.weights:
            module.load_state_dict(self.weights)
