"""Ends, or rolls back, a training whose loss jumps away from its recent mean."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError, NonFiniteError, unknown

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class SpikeDetection(Callback):
    """A loss far from the mean of the batches before raises; `on_nonfinite="rollback"` goes back.

    The losses stay on the device and are looked at together: every 50 batches, at an epoch's end
    and before each save, so that no state from after a spike is ever saved.

    Args:
        mode: "min" when a loss above the mean is worse, "max" when one below it is.
        window: batches whose mean is compared with.
        warmup: batches before the first comparison.
        atol: difference from the mean that is no spike yet; None leaves it to rtol.
        rtol: the same as a share of the mean's size; None leaves it to atol.
        finite_only: NaN and infinity are spikes as well.

    Raises:
        NonFiniteError: at a spike, with its batch, the loss and the mean.
    """

    EVERY = 50

    def __init__(
        self,
        mode: Literal["min", "max"] = "min",
        window: int = 10,
        warmup: int = 1,
        atol: float | None = None,
        rtol: float | None = 2.0,
        finite_only: bool = True,
    ) -> None:
        if mode not in ("min", "max"):
            raise unknown("mode", mode, ("min", "max"), "SpikeDetection")
        if atol is None and rtol is None:
            raise ConfigError("SpikeDetection needs atol or rtol", mend="SpikeDetection(rtol=2.0)")
        self.mode, self.window, self.warmup = mode, window, warmup
        self.atol, self.rtol, self.finite_only = atol or 0.0, rtol or 0.0, finite_only
        self._recent, self._waiting, self._seen = deque[float](maxlen=window), list[Tensor](), 0

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        if stage == "fit":
            self.load_state_dict({"recent": [], "seen": 0})

    def on_train_batch_end(
        self, trainer: Trainer, module: Module, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if outputs is not None:
            self._waiting.append(outputs["loss"].detach())
        if len(self._waiting) >= self.EVERY:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        self._look(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, module: Module, checkpoint: dict[str, Any]
    ) -> None:
        self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        """Compare what waits; each loss that is no spike joins the mean."""
        if not self._waiting:
            return
        losses = torch.stack(self._waiting)
        self._waiting = []
        trainer.strategy.average([losses])
        for loss in losses.tolist():
            self._seen += 1
            usual = fmean(self._recent) if self._recent else loss
            if self._seen > self.warmup and self._is_spike(loss, usual):
                said = f"the loss jumped to {loss:.4g} at batch {self._seen} of the fit"
                said += f", from a mean of {usual:.4g} over {len(self._recent)} before"
                raise NonFiniteError(
                    said,
                    where=f"epoch {trainer.current_epoch}",
                    allowed=f"up to {max(self.atol, self.rtol * abs(usual)):.4g} from the mean",
                    mend='Trainer(on_nonfinite="rollback"), a lower learning rate, or clipping',
                )
            if math.isfinite(loss):
                self._recent.append(loss)

    def _is_spike(self, loss: float, usual: float) -> bool:
        if not math.isfinite(loss):
            return self.finite_only
        worse = loss - usual if self.mode == "min" else usual - loss
        return worse > max(self.atol, self.rtol * abs(usual))

    def state_dict(self) -> dict[str, Any]:
        return {"recent": [*self._recent], "seen": self._seen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._recent = deque(state_dict["recent"], maxlen=self.window)
        self._waiting, self._seen = [], state_dict["seen"]
