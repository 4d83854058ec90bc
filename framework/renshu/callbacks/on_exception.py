"""A checkpoint of a fit that fails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError, NonFiniteError

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class OnExceptionCheckpoint(Callback):
    """Saves the whole state when training fails; a later fit that ends well deletes it.

    It is the state at the exception: exact if that came between two batches, before the failing
    batch drew random numbers or added to a half-summed gradient. Nothing is saved before the first
    batch is done, nor when numbers became NaN or infinite.

    Args:
        dirpath: the folder it is saved in.
        filename: its name, to which `.ckpt` is added.
    """

    def __init__(self, dirpath: str | Path, filename: str = "on_exception") -> None:
        if not filename:
            raise ConfigError("OnExceptionCheckpoint needs a filename")
        self.dirpath, self.filename = Path(dirpath), filename
        self._training = False

    @property
    def ckpt_path(self) -> str:
        """Where the checkpoint goes."""
        return str(self.dirpath / f"{self.filename}.ckpt")

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        self._training = True

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        failed = self._training and not isinstance(exception, NonFiniteError)
        self._training = False
        if failed and trainer.progress.batches:
            trainer.save_checkpoint(self.ckpt_path)

    def teardown(self, trainer: Trainer, module: Module, stage: str) -> None:
        self._training = False
        path = Path(self.ckpt_path)
        if stage == "fit" and not trainer.interrupted and trainer.is_global_zero and path.exists():
            trainer.discard_checkpoint(path)
            trainer.wait_for_checkpoints()
