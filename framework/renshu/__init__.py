"""renshu (練習, "training by practice"): a small trainer, and what stands on it."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from renshu.callbacks.callback import Callback as Callback
    from renshu.data import DataModule as DataModule
    from renshu.module import Module as Module
    from renshu.seeds import seed_everything as seed_everything
    from renshu.trainer import Trainer as Trainer

    LightningDataModule, LightningModule = DataModule, Module

__version__ = "0.1.0"

_PUBLIC = {
    "Callback": "renshu.callbacks.callback:Callback",
    "DataModule": "renshu.data:DataModule",
    "LightningDataModule": "renshu.data:DataModule",
    "LightningModule": "renshu.module:Module",
    "Module": "renshu.module:Module",
    "Trainer": "renshu.trainer:Trainer",
    "seed_everything": "renshu.seeds:seed_everything",
}
__all__ = [*_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that the command line needs no torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'renshu' has no attribute {name!r}")
    return pkgutil.resolve_name(_PUBLIC[name])
