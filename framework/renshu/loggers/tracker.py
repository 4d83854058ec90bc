"""What the loggers of experiment trackers share: which steps they hold, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from torch import Tensor

from renshu.errors import ConfigError
from renshu.loggers.logger import Logger


def require(package: str) -> None:
    """Raise ConfigError with the line that installs a package if it is missing."""
    # A folder of this name in the working directory, as W&B makes one, has no origin.
    if getattr(find_spec(package), "origin", None) is None:
        what, mend = f"the package {package} is missing", f'pip install "renshu[{package}]"'
        raise ConfigError(what, where="Trainer(logger=)", mend=mend)


class Tracker(Logger):
    """A tag gets one value a step, the first; after a resume none up to its newest step.

    A subclass fills `_marks` in `open`, and writes in `_send` and `_show`.

    Args:
        prefix: put before every tag, with a hyphen.
        log_model: the checkpoints that become artifacts at the end of a fit: none, the best one
            (True) or all that are kept ("all").
    """

    def __init__(self, prefix: str = "", log_model: Any = False) -> None:
        self._prefix, self._log_model = prefix and f"{prefix}-", log_model
        self._marks: dict[str, int] = {}
        self._step, self._ended = 0, False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._step = step = self._step if step is None else step
        named = {self._named(tag): value for tag, value in metrics.items()}
        fresh = {tag: value for tag, value in named.items() if step > self._marks.get(tag, -1)}
        if fresh:
            self._send(fresh, step)
            self._marks |= dict.fromkeys(fresh, step)
        if self._ended:
            self.save()

    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        step, key = self._step if step is None else step, self._named(key)
        shown = [pixels(image, key) for image in images]
        if step > self._marks.get(key, -1):
            self._show(key, shown, step, kwargs)

    def log_figure(
        self, key: str, figure: Any, step: int | None = None, close: bool = True
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        self.log_image(key, [np.array(canvas.buffer_rgba())], step)
        if close:
            from matplotlib import pyplot

            pyplot.close(figure)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        best = getattr(checkpoint_callback, "best_model_path", "")
        kept = [*getattr(checkpoint_callback, "best_k_models", ())] or [best]
        for path in filter(None, kept if self._log_model == "all" else [best]):
            if self._log_model:
                self.log_checkpoint(path)

    def log_checkpoint(self, path: str) -> None:
        """Keep a checkpoint's folder as an artifact."""
        self.log_artifact(path)

    def _send(self, metrics: dict[str, float], step: int) -> None:
        raise NotImplementedError

    def _show(self, key: str, images: list[Any], step: int, details: dict[str, Any]) -> None:
        """Pictures as uint8 [H, W, C]."""
        raise NotImplementedError

    def _named(self, tag: str) -> str:
        return self._prefix + tag

    def _id_file(self, run_dir: Path, where: str) -> Path:
        """Where the run's folder holds the id that the run has in a tracker's project."""
        return run_dir / f"{type(self).__name__}-{crc32(where.encode()):08x}.id"

    def _remembered(self, file: Path, resume: bool) -> str | None:
        return file.read_text().strip() if resume and file.exists() else None


def pixels(image: Any, where: str = "log_image") -> np.ndarray:
    """A picture as uint8 [H, W, C]; see `Logger.log_image` for what it may be."""
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image
        image = (image.movedim(0, -1) if image.ndim == 3 else image).numpy()
    array = np.asarray(image)
    if array.dtype.kind in "fb":
        array = np.rint(np.clip(array.astype(np.float64), 0, 1) * 255).astype(np.uint8)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or array.dtype != np.uint8:
        allowed = "Tensor [C, H, W] or array [H, W, C], C 1, 3 or 4; uint8 or floats in [0, 1]"
        what = f"a picture of shape {list(array.shape)} and type {array.dtype}"
        raise ConfigError(what, where=where, allowed=allowed)
    return array
