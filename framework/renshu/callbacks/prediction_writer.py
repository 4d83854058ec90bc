"""Predictions that are written while they are made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from renshu.callbacks.callback import Callback
from renshu.data import move
from renshu.errors import ConfigError, unknown

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_INTERVALS = ("batch", "epoch", "batch_and_epoch")


class BasePredictionWriter(Callback):
    """Override `write_on_batch_end`, `write_on_epoch_end` or both.

    With "batch" and `trainer.predict(…, return_predictions=False)` memory does not grow with the
    data; with "epoch" the predictions are kept on the CPU until the end.

    Args:
        write_interval: "batch", "epoch" or "batch_and_epoch".
    """

    def __init__(
        self, write_interval: Literal["batch", "epoch", "batch_and_epoch"] = "batch"
    ) -> None:
        if write_interval not in _INTERVALS:
            raise unknown("write_interval", write_interval, _INTERVALS, type(self).__name__)
        self._on_batch, self._on_epoch = "batch" in write_interval, "epoch" in write_interval

    def write_on_batch_end(
        self,
        trainer: Trainer,
        module: Module,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch; `batch_indices` are its samples' numbers in the data set, if known."""

    def write_on_epoch_end(
        self,
        trainer: Trainer,
        module: Module,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write everything: a list of batches, or one such list a loader; indices a loader."""

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        self._predictions, self._indices = list[list[Any]](), list[list[Any]]()
        for wanted, name in (
            (self._on_batch, "write_on_batch_end"),
            (self._on_epoch, "write_on_epoch_end"),
        ):
            if wanted and getattr(type(self), name) is getattr(BasePredictionWriter, name):
                raise ConfigError(f"{type(self).__name__} has no {name}")

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        module: Module,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        indices = trainer.evaluation_feeds[dataloader_idx].indices
        if self._on_batch:
            self.write_on_batch_end(
                trainer, module, outputs, indices, batch, batch_idx, dataloader_idx
            )
        if self._on_epoch:
            while len(self._predictions) <= dataloader_idx:
                self._predictions.append([])
                self._indices.append([])
            self._predictions[dataloader_idx].append(move(outputs, torch.device("cpu")))
            self._indices[dataloader_idx].append(indices)

    def on_predict_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self._on_epoch:
            found = self._predictions
            found = found[0] if len(found) == 1 else found
            self.write_on_epoch_end(trainer, module, found, self._indices)
            self._predictions, self._indices = [], []
