"""The logger interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from renshu.errors import ConfigError


class Logger:
    """Receives the values of a run. A logger of one's own overrides what it wants to receive.

    The trainer calls `open` with the run's folder before the first value, `save` before a
    checkpoint becomes valid, and `finalize` once at the end, also after an error. After a resume
    it sends again what was logged after the checkpoint; a logger drops the records up to its
    durable high-water mark, which are equal, so that no step is twice in it and none is missing.
    """

    name: str = "logger"

    def open(self, run_dir: Path, *, resume: bool) -> None:
        """Start writing below `run_dir`; with `resume`, go on with what is there."""

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        """Hyper-parameters of the module and the data module, once."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Values of one optimiser step. May be called several times for one step."""
        raise NotImplementedError

    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Pictures under one name: Tensors [C, H, W] or [H, W], arrays [H, W, C] or [H, W], PIL.

        Values are uint8, or floats in [0, 1]; C is 1, 3 or 4. `step` is that of the newest values
        unless given; give it where a run may be resumed: then no picture is there twice.
        """
        raise self._refusal("images")

    def log_figure(
        self, key: str, figure: Any, step: int | None = None, close: bool = True
    ) -> None:
        """A matplotlib figure as a picture; it is closed unless `close=False`."""
        raise self._refusal("figures")

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        """The model's operations as a graph, traced with an example input."""
        raise self._refusal("graphs")

    def log_artifact(self, path: str | Path, name: str | None = None) -> None:
        """A file, or a folder with all in it; under its own name unless given."""
        raise self._refusal("artifacts")

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Called at the end of a fit, when all its checkpoints are valid."""

    def save(self) -> None:
        """Make everything received so far durable. May be called from the saving thread."""

    def finalize(self, status: str) -> None:
        """The run ended with `status`: success, interrupted or failed."""

    def _refusal(self, what: str) -> ConfigError:
        keepers = {"graphs": "tensorboard", "artifacts": "wandb, mlflow"}
        allowed = f"loggers that do: {keepers.get(what, 'tensorboard, wandb, mlflow')}"
        return ConfigError(f"{type(self).__name__} keeps no {what}", allowed=allowed)


class NoLogger(Logger):
    """Takes everything and keeps nothing: in trial runs, and in processes that do not write.

    So `self.logger.experiment.add_image(…)` in a module works there as well.
    """

    @property
    def experiment(self) -> NoLogger:
        return self

    def _nothing(self, *args: Any, **kwargs: Any) -> None: ...

    log_metrics = log_image = log_figure = log_graph = log_artifact = _nothing

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._nothing
