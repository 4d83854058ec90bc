"""Saving during a fit: which states are kept, and when the others go."""

from __future__ import annotations

import copy
import math
import re
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renshu.callbacks.callback import Callback
from renshu.callbacks.monitor import (
    KeyWatch,
    better,
    check_mode,
    monitored,
    validates_at_epoch_end,
)
from renshu.errors import ConfigError, NonFiniteError
from renshu.intervals import Interval, Progress

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_STATE = (
    "score",
    "scores",
    "newest",
    "obsolete",
    "saved_step",
    "from_validation",
    "owed",
    "wanted",
)
_FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


class ModelCheckpoint(Callback):
    """Save the whole state at an interval; keep the best ones and the newest.

    Two policies work side by side and never write twice: the `save_top_k` best by `monitor`
    (without `monitor`: 1 keeps the newest, -1 all), and `save_last`, which keeps the newest. A
    checkpoint goes when neither wants it, and only after the one that replaces it is complete.

    Args:
        dirpath: where the checkpoints go; None is `checkpoints/` in the run's folder.
        filename: name of a checkpoint's folder, such as `"{epoch}-{val_loss:.2f}"`; the default is
            the optimiser step, `step=000120`.
        monitor: metric that ranks checkpoints. NaN never ranks.
        verbose: print one line a saved checkpoint.
        save_last: keep the newest too. None is True unless `save_top_k` is 0.
        save_top_k: how many of the best to keep; -1 all, 0 none.
        save_on_exception: save when the fit fails.
        save_weights_only: leave out what only resuming needs.
        mode: min or max: what is better.
        auto_insert_metric_name: write `val_loss=0.20` for `{val_loss:.2f}`, not `0.20` alone.
        every_n_train_steps: save every so many optimiser steps.
        train_time_interval: save every so much wall time; not reproducible.
        every_n_epochs: save every so many epochs; 1 if no other interval is given.
        save_on_train_epoch_end: False saves after validations instead of at the end of the epoch;
            None does so if validation is not simply once an epoch.
        enable_version_counter: add `-v1` to a name that is taken; otherwise that one is replaced.
        every: the interval in renshu's words, such as `"100 steps"`; instead of the three above.

    Raises:
        ConfigError: arguments that exclude each other, or a `monitor` that nobody logged by the end
            of the first epoch (and first validation); the state is saved before.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | None = None,
        save_top_k: int = 1,
        save_on_exception: bool = False,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        enable_version_counter: bool = True,
        *,
        every: str | Interval | None = None,
    ) -> None:
        check_mode(mode, "ModelCheckpoint(mode=)")
        if save_top_k < -1 or (monitor is None and save_top_k > 1):
            raise ConfigError(
                f"save_top_k={save_top_k} cannot be used with monitor={monitor!r}",
                where="ModelCheckpoint",
                allowed="-1, 0 and 1; with a monitor any number from -1",
            )
        self.dirpath = None if dirpath is None else Path(dirpath).expanduser().resolve()
        self.filename = filename or ("{step:06d}" if auto_insert_metric_name else "step={step:06d}")
        self.monitor = monitor
        self.verbose = verbose
        self.save_last = save_last
        self.save_top_k = save_top_k
        self.save_on_exception = save_on_exception
        self.save_weights_only = save_weights_only
        self.mode = mode
        self.auto_insert_metric_name = auto_insert_metric_name
        self.save_on_train_epoch_end = save_on_train_epoch_end
        self.enable_version_counter = enable_version_counter
        self.every = _interval(every, every_n_train_steps, train_time_interval, every_n_epochs)
        self.interval: Any = self.every
        self._fixed_dirpath = self.dirpath
        self._watch = KeyWatch(monitor, "ModelCheckpoint") if monitor else None
        self._start()

    def _start(self) -> None:
        self._score: float | None = None
        self._scores: dict[str, float] = {}
        self._newest = ""
        self._obsolete: list[str] = []
        self._saved_step = 0
        self._old_value: object = None
        self._from_validation = False
        self._validated_step = -1
        self._owed = False
        self._at_validation = False
        self._wanted = 0

    # When to save

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        self._fitting = stage == "fit"
        if not self._fitting:
            return
        self._start()
        self.dirpath = self._fixed_dirpath
        if self.dirpath is None and trainer.run_dir is not None:
            self.dirpath = (Path(trainer.run_dir) / "checkpoints").resolve()
        if self.dirpath is None and not trainer.options.fast_dev_run:
            raise ConfigError(
                "there is no run folder to save in",
                where="ModelCheckpoint",
                mend="give dirpath=, or leave checkpoints on in the Trainer",
            )

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        every, at_epoch_end = self.every, self.save_on_train_epoch_end
        if at_epoch_end is None:
            at_epoch_end = validates_at_epoch_end(trainer)
        epochs = every is not None and every.unit == "epochs"
        self._at_validation = epochs and not at_epoch_end
        waits = self._at_validation or (self.monitor is not None and not epochs)
        self.interval = None if trainer.options.fast_dev_run else every
        if self.interval is not None and waits:
            self.interval = _OrValidation(self, None if self._at_validation else every)
        # What was deleted by hand, or left behind elsewhere, is no best one after a resume.
        scores = self._scores.items()
        self._scores = {n: score for n, score in scores if Path(self._path(n)).exists()}

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        if self._watch:
            self._old_value = trainer.callback_metrics.get(self._watch.key)

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        if not self._fitting:
            return
        if self._watch:
            self._watch.validated(trainer)
            value = trainer.callback_metrics.get(self._watch.key)
            self._from_validation |= value is not self._old_value
        if trainer.sanity_checking or self.every is None:
            return
        self._validated_step = trainer.global_step
        epoch_counts = (trainer.current_epoch + 1) % self.every.size == 0
        asked = self._owed or (self._at_validation and epoch_counts)
        self._wanted += asked or self._missing(trainer) is not None

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        self.save(trainer)
        self._refuse(self._missing(trainer), trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: Module) -> None:
        if self._watch:
            self._watch.see(trainer)

    def on_train_epoch_start(self, trainer: Trainer, module: Module) -> None:
        if trainer.progress.epochs > 0:
            self._refuse(self._missing(trainer, after_epoch=True), trainer)

    def on_fit_end(self, trainer: Trainer, module: Module) -> None:
        if not trainer.interrupted:
            if self.interval is not None and self._keeps_newest:
                self.save(trainer)
            self._refuse(self._missing(trainer, after_epoch=True), trainer)
        trainer.wait_for_checkpoints()
        self._sweep(trainer)

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        wanted = self.save_on_exception and not isinstance(exception, NonFiniteError)
        if wanted and self._fitting and not trainer.sanity_checking:
            self.save(trainer)

    def _missing(self, trainer: Trainer, after_epoch: bool = False) -> ConfigError | None:
        return self._watch.error(trainer, after_epoch=after_epoch) if self._watch else None

    def _refuse(self, error: ConfigError | None, trainer: Trainer) -> None:
        if error is not None:
            self.save(trainer)
            trainer.wait_for_checkpoints()
            raise error

    # Saving and deleting

    def save(self, trainer: Trainer) -> None:
        """Save now, if a policy wants this state and this step is not saved yet."""
        if trainer.global_step == self._saved_step or trainer.options.fast_dev_run:
            return
        trainer.wait_for_checkpoints()
        self._sweep(trainer)
        score = self._fresh_score(trainer)
        self._owed = self.monitor is not None and score is None
        ranks = score is not None and self._ranks(score)
        if not (ranks or self._keeps_newest or self.save_top_k == -1):
            return
        name, before = self._free_name(trainer), self.state_dict()
        self._note(name, score if ranks else None)
        self._saved_step = trainer.global_step
        try:
            trainer.save_checkpoint(self._path(name), self.save_weights_only, background=True)
        except BaseException:
            self.load_state_dict(before)
            raise
        if self.verbose:
            text = f"step {trainer.global_step}: saved {name} ({self.monitor}={score})"
            trainer.lightning_module.print(text)

    @property
    def _keeps_newest(self) -> bool:
        only_policy = self.monitor is None and self.save_top_k == 1
        return only_policy or (self.save_top_k != 0 if self.save_last is None else self.save_last)

    def _fresh_score(self, trainer: Trainer) -> float | None:
        """The monitored value, unless a validation gave it for other weights than these."""
        if self.monitor is None:
            return None
        if self._from_validation and self._validated_step != trainer.global_step:
            return None
        self._score = monitored(trainer, self.monitor)
        return self._score

    def _ranks(self, score: float) -> bool:
        if math.isnan(score) or self.save_top_k == 0:
            return False
        room = self.save_top_k == -1 or len(self._scores) < self.save_top_k
        return room or better(self.mode, score, self._scores[self._ranking()[-1]])

    def _note(self, name: str, score: float | None) -> None:
        """Enter a checkpoint, before it is written so that it knows itself; name what goes."""
        leaving = {self._newest}
        self._newest = name
        if score is not None:
            self._scores[name] = score
        if 0 < self.save_top_k < len(self._scores):
            worst = self._ranking()[-1]
            del self._scores[worst]
            leaving.add(worst)
        if self.save_top_k != -1:
            self._obsolete += sorted(leaving - set(self._scores) - {"", name})

    def _sweep(self, trainer: Trainer) -> None:
        """Delete what no policy wants; called when all that was saved so far is complete."""
        for name in self._obsolete if trainer.is_global_zero else ():
            path = Path(self._path(name)).resolve()
            if self.dirpath in path.parents and path.is_dir():
                shutil.rmtree(path)
        self._obsolete.clear()

    def _free_name(self, trainer: Trainer) -> str:
        now = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        name = stem = self.format_checkpoint_name({**trainer.callback_metrics, **now})
        version = 0
        while self.enable_version_counter and Path(self._path(name)).exists():
            version += 1
            name = f"{stem}-v{version}"
        return name

    def format_checkpoint_name(self, metrics: Mapping[str, Any]) -> str:
        """The folder's name for these values; a metric that is not there is written as nan."""

        def write(match: re.Match[str]) -> str:
            key, spec = match.groups()
            value = metrics.get(key, math.nan)
            value = value.item() if isinstance(value, Tensor) else value
            try:
                text = format(value, spec or "")
            except ValueError:
                text = str(value)
            return f"{key.replace('/', '_')}={text}" if self.auto_insert_metric_name else text

        return _FIELD.sub(write, self.filename)

    # What was saved

    @property
    def best_k_models(self) -> dict[str, Tensor]:
        """Path to score (0-dim float64) of the best checkpoints, the best first."""
        return {self._path(name): _tensor(self._scores[name]) for name in self._ranking()}

    @property
    def best_model_path(self) -> str:
        """The best checkpoint; without `monitor` the newest; empty if there is none."""
        if self.monitor is None:
            return self.last_model_path
        return self._path(self._ranking()[0]) if self._scores else ""

    @property
    def best_model_score(self) -> Tensor | None:
        """Score of the best checkpoint, 0-dim float64."""
        return _tensor(self._scores[self._ranking()[0]]) if self._scores else None

    @property
    def kth_best_model_path(self) -> str:
        """The worst of the best checkpoints."""
        return self._path(self._ranking()[-1]) if self._scores else ""

    @property
    def kth_value(self) -> Tensor | None:
        """Score of the worst of the best checkpoints, 0-dim float64."""
        return _tensor(self._scores[self._ranking()[-1]]) if self._scores else None

    @property
    def last_model_path(self) -> str:
        """The newest checkpoint; empty if there is none."""
        return self._path(self._newest)

    @property
    def current_score(self) -> Tensor | None:
        """The monitored value at the last event, 0-dim float64."""
        return None if self._score is None else _tensor(self._score)

    def _ranking(self) -> list[str]:
        return sorted(self._scores, key=self._scores.__getitem__, reverse=self.mode == "max")

    def _path(self, name: str) -> str:
        return str(self.dirpath / name) if self.dirpath and name else name

    # State

    @property
    def state_key(self) -> str:
        return (
            f"ModelCheckpoint(monitor={self.monitor!r}, mode={self.mode!r}, every='{self.every}')"
        )

    def state_dict(self) -> dict[str, Any]:
        state = {name: copy.copy(getattr(self, f"_{name}")) for name in _STATE}
        return state | {"best": self._ranking()[0] if self._scores else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, f"_{name}", copy.copy(state_dict[name]))


class _OrValidation:
    """Due when `every` is, and after each validation at which the callback wants to save."""

    def __init__(self, callback: ModelCheckpoint, every: Interval | None) -> None:
        self.callback = callback
        self.every = every

    def count(self, progress: Progress) -> int:
        due = self.every.count(progress) if self.every else 0
        return due + self.callback._wanted

    def batches_until(self, progress: Progress) -> float:
        return self.every.batches_until(progress) if self.every else math.inf


def _tensor(score: float) -> Tensor:
    return torch.tensor(score, dtype=torch.float64)


def _interval(
    every: str | Interval | None, steps: int | None, time: timedelta | None, epochs: int | None
) -> Interval | None:
    """The one interval that was given; every epoch if none was; None if it was 0."""
    if sum(bool(given) for given in (every, steps, time is not None, epochs)) > 1:
        raise ConfigError(
            "more than one interval is given",
            where="ModelCheckpoint",
            allowed="one of every, every_n_train_steps, train_time_interval, every_n_epochs",
        )
    if time is not None:
        every = f"{time.total_seconds()} s"
    elif steps:
        every = f"{steps} steps"
    elif epochs or (steps is None and epochs is None and every is None):
        every = f"{epochs or 1} epochs"
    return None if every is None else Interval.parse(every, "ModelCheckpoint")
