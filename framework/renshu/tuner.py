"""Tuner: searches for a learning rate and a batch size before anything is trained."""

from __future__ import annotations

from typing import Any

from renshu import seeds
from renshu.callbacks.batch_size_finder import BatchSizeFinder
from renshu.callbacks.lr_finder import LearningRateFinder, LRFinder
from renshu.data import DataModule
from renshu.errors import ConfigError, unknown
from renshu.module import Module
from renshu.plan import VERBS
from renshu.trainer import Trainer
from renshu.trial import Search

_STAGES = {verb: stage for stage, verb in VERBS.items()}


class Tuner:
    """Searches with the settings of a Trainer, which takes no part itself.

    Module and generators are bit-equal afterwards, except for what was found; nothing is logged or
    saved. Arguments and results are Lightning's.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer

    def lr_find(
        self,
        model: Module,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: DataModule | None = None,
        method: str = "fit",
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training: int = 100,
        mode: str = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str = "",
    ) -> LRFinder | None:
        """A learning rate range test (Smith 2017, arXiv:1506.01186): rates, losses, a suggestion.

        The arguments are those of `LearningRateFinder`; `method` can only be "fit". None with
        fast_dev_run.
        """
        if method != "fit":
            raise ConfigError(f"lr_find with method={method!r}", allowed="fit")
        finder = LearningRateFinder(
            min_lr, max_lr, num_training, mode, early_stop_threshold, update_attr, attr_name
        )
        loaders = (train_dataloaders, val_dataloaders, dataloaders)
        self._search(finder, method, model, loaders, datamodule)
        return finder.optimal_lr

    def scale_batch_size(
        self,
        model: Module,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: DataModule | None = None,
        method: str = "fit",
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
    ) -> int | None:
        """The largest batch size that fits into memory; `method` tells what to do with batches.

        The arguments are those of `BatchSizeFinder`. None with fast_dev_run.
        """
        finder = BatchSizeFinder(
            mode, steps_per_trial, init_val, max_trials, batch_arg_name, margin, max_val
        )
        loaders = (train_dataloaders, val_dataloaders, dataloaders)
        self._search(finder, method, model, loaders, datamodule)
        return finder.optimal_batch_size

    def _search(
        self,
        finder: Search,
        method: str,
        model: Module,
        loaders: tuple[Any, Any, Any],
        datamodule: DataModule | None,
    ) -> None:
        """Everything that precedes the first batch, in a silent Trainer; then the search."""
        train, val, other = loaders
        self._check(method, type(finder), train is not None or val is not None, other is not None)
        quiet: dict[str, Any] = {"callbacks": None, "logger": False, "seed": self._trainer.seed}
        for name in ("checkpointing", "progress_bar", "model_summary"):
            quiet[f"enable_{name}"] = False
        options: dict[str, Any] = vars(self._trainer.options) | quiet
        random, stage = seeds.random_state(), _STAGES[method]
        owners = [o for o in (model, datamodule, train) if isinstance(o, (Module, DataModule))]
        keys = ["_trainer" if isinstance(owner, Module) else "trainer" for owner in owners]
        attached = [vars(owner).get(key) for owner, key in zip(owners, keys, strict=True)]
        silent = Trainer(**options)
        try:
            if method == "fit":
                plan = silent._begin(stage, model, train, datamodule)
                with silent._running(plan):
                    silent._plan_fit(plan, train, val, None)
                    finder.search(silent, model)
            else:
                plan = silent._plan_evaluation(stage, model, other, None, datamodule)
                with silent._running(plan):
                    finder.search(silent, model)
        finally:
            for owner, key, trainer in zip(owners, keys, attached, strict=True):
                vars(owner)[key] = trainer
            seeds.set_random_state(random)

    def _check(self, method: str, kind: type, fitting: bool, evaluating: bool) -> None:
        """What cannot be searched."""
        if method not in _STAGES:
            raise unknown("method", method, _STAGES, "Tuner")
        if evaluating if method == "fit" else fitting:
            names = ("train_dataloaders, val_dataloaders", "dataloaders")
            takes = names[method != "fit"]
            raise ConfigError(f"method={method!r} got other loaders", where="Tuner", allowed=takes)
        if self._trainer.strategy.world > 1:
            raise ConfigError("Tuner needs one process", allowed="a Trainer with devices=1")
        if any(isinstance(callback, kind) for callback in self._trainer.callbacks):
            said = f"the Trainer has a {kind.__name__} already"
            raise ConfigError(said, where="Tuner", mend="search with one of the two")
