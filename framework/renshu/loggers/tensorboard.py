"""The run's values for TensorBoard."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.errors import ConfigError, RunError
from renshu.loggers.files import set_aside, write_hparams
from renshu.loggers.logger import Logger

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.utils.tensorboard.writer import SummaryWriter

_HPARAMS_TAG = "_hparams_/session_start_info"


class TensorBoardLogger(Logger):
    """Writes event files to `tensorboard/` in the run's folder, with `hparams.yaml` beside them.

    A tag gets one value a step, the first. After a resume the newest step of each tag is read from
    the event files that are there, and nothing up to it is written again. A fresh start sets an
    older folder aside.

    Args:
        save_dir: folder for the event files; None is `tensorboard/` in the run's folder.
        prefix: put before each metric's name, with a `-` between.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    name = "tensorboard"

    def __init__(self, save_dir: str | Path | None = None, *, prefix: str = "") -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise ConfigError(
                "the TensorBoard logger needs the package tensorboard",
                where="Trainer(logger=)",
                mend='pip install "renshu[tensorboard]"',
            ) from None
        self.save_dir = None if save_dir is None else Path(save_dir)
        self.prefix = f"{prefix}-" if prefix else ""
        self.log_dir: Path | None = None
        self._writer: SummaryWriter | None = None
        self._marks: dict[str, int] = {}
        self._ended = False

    @property
    def experiment(self) -> SummaryWriter:
        """torch's SummaryWriter, for add_image, add_figure and all else."""
        if self.log_dir is None:
            raise RunError("the TensorBoard logger is not open", mend="use it during a fit")
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self.log_dir))
        return self._writer

    def open(self, run_dir: Path, *, resume: bool) -> None:
        self._close()
        self.log_dir = self.save_dir or Path(run_dir) / "tensorboard"
        if not resume:
            set_aside(self.log_dir)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._marks = _newest_steps(self.log_dir) if resume else {}
        self._ended = False

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        assert self.log_dir is not None
        write_hparams(self.log_dir / "hparams.yaml", params)
        if _HPARAMS_TAG in self._marks:
            return
        from torch.utils.tensorboard.summary import hparams

        plain = {
            k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in params.items()
        }
        for summary in hparams(plain, {}):
            self.experiment._get_file_writer().add_summary(summary)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self.log_dir is None:
            return
        for name, value in metrics.items():
            tag = name if name in ("epoch", "samples") else self.prefix + name
            if step > self._marks.get(tag, -1):
                self._marks[tag] = step
                self.experiment.add_scalar(tag, value, step)
        if self._ended:
            self.experiment.flush()

    def log_graph(self, module: Module, inputs: Any = None) -> None:
        """The module's graph; `inputs` is a batch, by default the module's example_input_array."""
        inputs = getattr(module, "example_input_array", None) if inputs is None else inputs
        if inputs is None:
            raise ConfigError("log_graph needs inputs", mend="log_graph(module, batch)")
        with warnings.catch_warnings():
            # The writer still traces with torch.jit; that is torch's to change, not the user's.
            warnings.filterwarnings("ignore", "`torch.jit.trace", FutureWarning)
            self.experiment.add_graph(module, inputs)

    def save(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def finalize(self, status: str) -> None:
        self._close()
        self._ended = True

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _newest_steps(folder: Path) -> dict[str, int]:
    """Tag → newest step in the event files of a folder; a torn end of a file is passed over."""
    from tensorboard.backend.event_processing.event_file_loader import (
        EventFileLoader,
    )

    newest: dict[str, int] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                newest[value.tag] = max(event.step, newest.get(value.tag, -1))
    return newest
