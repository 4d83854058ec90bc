"""The Trainer's attributes that are looked up elsewhere, under the names that Lightning has."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from renshu import loops, planning
from renshu.runs import runs_root

if TYPE_CHECKING:
    from renshu.trainer import Trainer


def _length(feed: Any) -> int | float:
    return math.inf if feed is None or feed.length is None else feed.length


def _with(attribute: str) -> Callable[[Trainer], list[Any]]:
    return lambda t: [callback for callback in t.callbacks if hasattr(callback, attribute)]


def _first_with(attribute: str) -> Callable[[Trainer], Any]:
    return lambda t: next(iter(_with(attribute)(t)), None)


def _feeds(t: Trainer, stage: str) -> list[Any] | None:
    """The feeds of a stage, if it is part of what runs; validation is part of a fit too."""
    stages = (stage, "train") if stage == "validation" else (stage,)
    return t._plan.val_feeds if t._plan is not None and t._plan.stage in stages else None


def _lengths(stage: str) -> Callable[[Trainer], list[int | float]]:
    """Batches of each loader of a stage."""
    return lambda t: [_length(feed) for feed in _feeds(t, stage) or ()]


def _loaders(stage: str) -> Callable[[Trainer], Any]:
    """The loaders of a stage, as they were given."""

    def loaders(t: Trainer) -> Any:
        if (feeds := _feeds(t, stage)) is None:
            return None
        found = [feed.loader for feed in feeds]
        return found[0] if len(found) == 1 else found

    return loaders


KNOWN: dict[str, Callable[[Trainer], Any]] = {
    **dict.fromkeys(("lightning_module", "module", "model"), lambda t: t._require_plan().module),
    "training": lambda t: t.state_stage == "train",
    "validating": lambda t: t.state_stage == "validation" and not t.sanity_checking,
    "testing": lambda t: t.state_stage == "test",
    "predicting": lambda t: t.state_stage == "predict",
    "evaluating": lambda t: t.validating or t.testing,
    "is_global_zero": lambda t: t.strategy.is_global_zero,
    "global_rank": lambda t: t.strategy.rank,
    "local_rank": lambda t: t.strategy.local_rank,
    "node_rank": lambda t: t.strategy.rank // max(1, t.num_devices),
    "world_size": lambda t: t.strategy.world,
    "num_devices": lambda t: len(t.device_ids),
    "device_ids": lambda t: [device.index or 0 for device in t.devices_used],
    "scaler": lambda t: t.precision.scaler,
    "logger": lambda t: t.loggers[0] if t.loggers else None,
    "log_dir": lambda t: t.run_dir and str(t.run_dir),
    "default_root_dir": lambda t: str(runs_root(t.options.default_root_dir).parent),
    "checkpoint_callback": _first_with("best_model_path"),
    "checkpoint_callbacks": _with("best_model_path"),
    "early_stopping_callback": _first_with("patience"),
    "early_stopping_callbacks": _with("patience"),
    "progress_bar_callback": _first_with("refresh_rate"),
    "log_every_n_steps": lambda t: t.options.log_every_n_steps or 50,
    "datamodule": lambda t: t._plan and t._plan.datamodule,
    "optimizers": lambda t: t._plan.optimizers if t._plan else [],
    "optimizer_handles": lambda t: t._plan.handles if t._plan else [],
    "lr_scheduler_configs": lambda t: t._plan.schedulers if t._plan else [],
    "last_loss": lambda t: t._plan and t._plan.loss,
    "is_last_batch": lambda t: bool(t._plan and t._plan.feed and t._plan.feed.last),
    "received_sigterm": lambda t: bool(t._plan and t._plan.asked == signal.SIGTERM),
    "enable_validation": lambda t: any(t.num_val_batches),
    "max_epochs": lambda t: t._plan.max_epochs if t._plan else t.options.max_epochs,
    "num_training_batches": lambda t: _length(t._plan and t._plan.feed),
    "num_val_batches": _lengths("validation"),
    "num_test_batches": _lengths("test"),
    "num_predict_batches": _lengths("predict"),
    "num_sanity_val_batches": lambda t: [
        min(t._plan.sanity_batches, count) if t._plan else count for count in t.num_val_batches
    ],
    "train_dataloader": lambda t: t._plan and t._plan.feed and t._plan.feed.loader,
    "val_dataloaders": _loaders("validation"),
    "test_dataloaders": _loaders("test"),
    "predict_dataloaders": _loaders("predict"),
    "evaluation_feeds": lambda t: t._plan.val_feeds if t._plan else [],
    "rehearsals": lambda t: loops.rehearsals(t._require_plan()),
    "estimated_stepping_batches": lambda t: planning.estimated_steps(t._require_plan()),
}
"""Attribute of the Trainer → how it is found. Before the first fit there is None or an empty list.

Batches are math.inf where a loader does not say; `estimated_stepping_batches` are the optimiser
steps of the whole fit; `last_loss` is on the device.
"""

GONE = {
    "distributed_sampler_kwargs": "`trainer.strategy` has the rank and the number of processes",
    "fit_loop": "the loops are functions; `trainer.progress` has the counts",
    "validate_loop": "the loops are functions; `trainer.validate` returns the values",
    "test_loop": "the loops are functions; `trainer.test` returns the values",
    "predict_loop": "the loops are functions; `trainer.predict` returns the outputs",
    "state": "`trainer.state_stage`, and `training`, `validating`, `testing`, `predicting`",
    "val_check_batch": "`trainer.options` has val_check_interval",
    "precision_plugin": "`trainer.precision`",
}
"""Attributes of Lightning's Trainer that are not here, and what to use instead."""
