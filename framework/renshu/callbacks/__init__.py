"""Built-in callbacks, each imported when its name is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renshu.callbacks.accumulation import (
        GradientAccumulationScheduler as GradientAccumulationScheduler,
    )
    from renshu.callbacks.batch_size_finder import BatchSizeFinder as BatchSizeFinder
    from renshu.callbacks.callback import Callback as Callback
    from renshu.callbacks.compile_watch import CompileWatch as CompileWatch
    from renshu.callbacks.device_stats import DeviceStatsMonitor as DeviceStatsMonitor
    from renshu.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from renshu.callbacks.ema import EMA as EMA
    from renshu.callbacks.ema import EMAWeightAveraging as EMAWeightAveraging
    from renshu.callbacks.finetuning import BackboneFinetuning as BackboneFinetuning
    from renshu.callbacks.finetuning import BaseFinetuning as BaseFinetuning
    from renshu.callbacks.lambda_function import LambdaCallback as LambdaCallback
    from renshu.callbacks.lr_finder import LearningRateFinder as LearningRateFinder
    from renshu.callbacks.lr_monitor import LearningRateMonitor as LearningRateMonitor
    from renshu.callbacks.model_checkpoint import ModelCheckpoint as ModelCheckpoint
    from renshu.callbacks.on_exception import OnExceptionCheckpoint as OnExceptionCheckpoint
    from renshu.callbacks.prediction_writer import BasePredictionWriter as BasePredictionWriter
    from renshu.callbacks.progress import ProgressBar as ProgressBar
    from renshu.callbacks.progress import RichProgressBar as RichProgressBar
    from renshu.callbacks.progress import TQDMProgressBar as TQDMProgressBar
    from renshu.callbacks.pruning import ModelPruning as ModelPruning
    from renshu.callbacks.spike import SpikeDetection as SpikeDetection
    from renshu.callbacks.summary import ModelSummary as ModelSummary
    from renshu.callbacks.summary import RichModelSummary as RichModelSummary
    from renshu.callbacks.swa import StochasticWeightAveraging as StochasticWeightAveraging
    from renshu.callbacks.throughput import ThroughputMonitor as ThroughputMonitor
    from renshu.callbacks.timer import Timer as Timer
    from renshu.callbacks.weight_averaging import WeightAveraging as WeightAveraging

_MODULES = {
    "BackboneFinetuning": "finetuning",
    "BaseFinetuning": "finetuning",
    "BasePredictionWriter": "prediction_writer",
    "BatchSizeFinder": "batch_size_finder",
    "Callback": "callback",
    "CompileWatch": "compile_watch",
    "DeviceStatsMonitor": "device_stats",
    "EMA": "ema",
    "EMAWeightAveraging": "ema",
    "EarlyStopping": "early_stopping",
    "GradientAccumulationScheduler": "accumulation",
    "LambdaCallback": "lambda_function",
    "LearningRateFinder": "lr_finder",
    "LearningRateMonitor": "lr_monitor",
    "ModelCheckpoint": "model_checkpoint",
    "ModelPruning": "pruning",
    "ModelSummary": "summary",
    "OnExceptionCheckpoint": "on_exception",
    "ProgressBar": "progress",
    "RichModelSummary": "summary",
    "RichProgressBar": "progress",
    "SpikeDetection": "spike",
    "StochasticWeightAveraging": "swa",
    "TQDMProgressBar": "progress",
    "ThroughputMonitor": "throughput",
    "Timer": "timer",
    "WeightAveraging": "weight_averaging",
}

__all__ = [*_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
