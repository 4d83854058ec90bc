"""renshu (練習, "training by practice"): a small trainer, and what stands on it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renshu.callbacks.callback import Callback
    from renshu.data import DataModule
    from renshu.data import DataModule as LightningDataModule
    from renshu.module import Module
    from renshu.module import Module as LightningModule
    from renshu.seeds import seed_everything
    from renshu.trainer import Trainer

__version__ = "0.1.0"
__all__ = [
    "Callback",
    "DataModule",
    "LightningDataModule",
    "LightningModule",
    "Module",
    "Trainer",
    "seed_everything",
]

_PUBLIC = {
    "Callback": ("renshu.callbacks.callback", "Callback"),
    "DataModule": ("renshu.data", "DataModule"),
    "LightningDataModule": ("renshu.data", "DataModule"),
    "LightningModule": ("renshu.module", "Module"),
    "Module": ("renshu.module", "Module"),
    "Trainer": ("renshu.trainer", "Trainer"),
    "seed_everything": ("renshu.seeds", "seed_everything"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line needs no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'renshu' has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(importlib.import_module(module), attribute)
