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
    from renshu.callbacks.progress import RichProgressBar as RichProgressBar
    from renshu.callbacks.progress import TQDMProgressBar as TQDMProgressBar
    from renshu.callbacks.summary import ModelSummary as ModelSummary

_NAMES = {
    "Callback": "callback:Callback",
    "EMA": "ema:EMA",
    "EarlyStopping": "early_stopping:EarlyStopping",
    "LearningRateMonitor": "lr_monitor:LearningRateMonitor",
    "ModelCheckpoint": "model_checkpoint:ModelCheckpoint",
    "ModelSummary": "summary:ModelSummary",
    "ProgressBar": "progress:ProgressBar",
    "RichProgressBar": "progress:RichProgressBar",
    "TQDMProgressBar": "progress:TQDMProgressBar",
}


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(_NAMES)
