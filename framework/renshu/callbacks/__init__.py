"""Built-in callbacks, each imported when its name is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renshu.callbacks.callback import Callback as Callback
    from renshu.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from renshu.callbacks.ema import EMA as EMA
    from renshu.callbacks.lr_monitor import LearningRateMonitor as LearningRateMonitor
    from renshu.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from renshu.callbacks.progress import ProgressBar as ProgressBar
    from renshu.callbacks.summary import ModelSummary as ModelSummary

_MODULES = {
    "Callback": "callback",
    "EMA": "ema",
    "EarlyStopping": "early_stopping",
    "LearningRateMonitor": "lr_monitor",
    "ModelCheckpoint": "model_checkpoint",
    "ModelSummary": "summary",
    "ProgressBar": "progress",
}

__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
