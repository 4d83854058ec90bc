"""The run's values for TensorBoard."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.errors import ConfigError, RunError
from renshu.loggers.files import set_aside
from renshu.loggers.tracker import Tracker, require

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

_HPARAMS_TAG = "_hparams_/session_start_info"


class TensorBoardLogger(Tracker):
    """Writes event files to `tensorboard/` in the run's folder.

    A tag gets one value a step, the first. After a resume the newest step of each tag is read from
    the event files that are there, and nothing up to it is written again. A fresh start sets an
    older folder aside.

    Args:
        save_dir: folder for the event files; None is `tensorboard/` in the run's folder.

    Raises:
        ConfigError: the package tensorboard is not installed.
    """

    name = "tensorboard"

    def __init__(self, save_dir: str | Path | None = None) -> None:
        require("tensorboard")
        super().__init__()
        self.save_dir = save_dir
        self.log_dir: Path | None = None
        self._writer: SummaryWriter | None = None

    @property
    def experiment(self) -> SummaryWriter:
        """torch's SummaryWriter, for add_image, add_figure, add_graph and all else."""
        if self.log_dir is None:
            raise RunError("the TensorBoard logger is not open", mend="use it during a fit")
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._writer = SummaryWriter(str(self.log_dir))
        return self._writer

    def open(self, run_dir: Path, *, resume: bool) -> None:
        self.finalize("reopened")
        self.log_dir, self._ended = Path(self.save_dir or Path(run_dir) / "tensorboard"), False
        if not resume:
            set_aside(self.log_dir)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        self._marks = _newest_steps(self.log_dir)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        if _HPARAMS_TAG not in self._marks:
            from torch.utils.tensorboard.summary import hparams

            plain = (bool, int, float, str)
            shown = {k: v if isinstance(v, plain) else str(v) for k, v in params.items()}
            for summary in hparams(shown, {}):
                self.experiment._get_file_writer().add_summary(summary)

    def _send(self, metrics: dict[str, float], step: int) -> None:
        for tag, value in metrics.items():
            self.experiment.add_scalar(tag, value, step)

    def _show(self, key: str, images: list[Any], step: int, details: dict[str, Any]) -> None:
        for number, image in enumerate(images):
            tag = f"{key}/{number}" if number else key
            self.experiment.add_image(tag, image, step, dataformats="HWC")

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        example = (
            getattr(model, "example_input_array", None) if input_array is None else input_array
        )
        if example is None:
            what, mend = "a graph needs an example input", "log_graph(model, input_array=batch)"
            raise ConfigError(what, where="TensorBoardLogger", mend=mend)
        with warnings.catch_warnings():
            # TensorBoard's graph is made by torch.jit.trace, for which there is no other way.
            warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
            warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
            self.experiment.add_graph(model, example)

    def save(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    def finalize(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer, self._ended = None, True


def _newest_steps(folder: Path) -> dict[str, int]:
    """Tag → newest step in the event files of a folder; a torn end of a file is passed over."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    newest: dict[str, int] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                newest[value.tag] = max(event.step, newest.get(value.tag, -1))
    return newest
