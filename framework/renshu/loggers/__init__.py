"""Built-in loggers, each imported when its name is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from renshu.errors import ConfigError, unknown

if TYPE_CHECKING:
    from renshu.loggers.csv import CSVLogger as CSVLogger
    from renshu.loggers.logger import Logger as Logger
    from renshu.loggers.logger import NoLogger as NoLogger
    from renshu.loggers.mlflow import MLFlowLogger as MLFlowLogger
    from renshu.loggers.tensorboard import TensorBoardLogger as TensorBoardLogger
    from renshu.loggers.wandb import WandbLogger as WandbLogger

LOGGERS = {
    "csv": "CSVLogger",
    "tensorboard": "TensorBoardLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
}
"""What the Trainer's option `logger` may name."""
_MODULES = {
    "Logger": "logger",
    "NoLogger": "logger",
    **{name: module for module, name in LOGGERS.items()},
}


def make_loggers(spec: Any) -> list[Logger]:
    """Loggers from the Trainer's option `logger`.

    Args:
        spec: None or True is the CSV logger, False none; a name in LOGGERS, a Logger, or a list
            of names and Loggers.

    Raises:
        ConfigError: an unknown name, with the nearest one.
    """
    from renshu.loggers.logger import Logger

    words = {None: ["csv"], True: ["csv"], False: []}
    items = spec if isinstance(spec, list | tuple) else words.get(spec, [spec])
    for item in items:
        if not isinstance(item, Logger) and item not in LOGGERS:
            raise unknown("logger", item, LOGGERS, "Trainer(logger=)")
    found = [item if isinstance(item, Logger) else __getattr__(LOGGERS[item])() for item in items]
    tables = [str(getattr(logger, "save_dir", None)) for logger in found if logger.name == "csv"]
    if len(set(tables)) < len(tables):
        said = "two CSV loggers would write one file"
        raise ConfigError(said, allowed="one", mend="CSVLogger(save_dir=...) for the other")
    return found


__all__ = [*_MODULES, "LOGGERS", "make_loggers"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
