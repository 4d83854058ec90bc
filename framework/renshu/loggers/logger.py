"""The logger interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Logger:
    """Receives the values of a run.

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

    def save(self) -> None:
        """Make everything received so far durable. May be called from the saving thread."""

    def finalize(self, status: str) -> None:
        """The run ended with `status`: success, interrupted or failed."""
