"""Says when torch.compile does not come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch._dynamo.utils import counters

from renshu.callbacks.callback import Callback
from renshu.messages import say

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class CompileWatch(Callback):
    """Counts the training batches in which torch.compile had to compile; one message at the third.

    The first batch compiles, a second one may generalise the shapes: more is a program that changes
    from batch to batch, and waiting for the compiler instead of training. `compile=True` adds it.
    """

    ALLOWED = 2

    def __init__(self) -> None:
        self._graphs = self._batches = 0

    def on_train_batch_start(
        self, trainer: Trainer, module: Module, batch: Any, batch_idx: int
    ) -> None:
        self._graphs = counters["stats"]["unique_graphs"]

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if counters["stats"]["unique_graphs"] == self._graphs:
            return
        self._batches += 1
        if self._batches == self.ALLOWED + 1:
            say(
                f"torch.compile compiled again in batch {batch_idx} of epoch"
                f" {trainer.current_epoch}, for the third time: shapes, or numbers that"
                " Python looks at, change from batch to batch. Pad to a few sizes, or leave"
                " compile=True out; TORCH_LOGS=recompiles shows each reason"
            )
