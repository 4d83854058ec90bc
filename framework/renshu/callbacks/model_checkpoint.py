"""Saving during a fit: which states are kept, and when the others go."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renshu.callbacks.monitor import Watcher
from renshu.errors import ConfigError, NonFiniteError
from renshu.intervals import Interval

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer

_NAMES = {True: "{step:06d}", False: "step={step:06d}"}
_FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")


@dataclass(eq=False)
class ModelCheckpoint(Watcher):
    """Save the whole state at an interval; keep the best ones and the newest.

    Two policies work side by side and never write twice: the `save_top_k` best by `monitor`
    (without `monitor`: 1 keeps the newest, -1 all), and `save_last`, which keeps the newest. A
    checkpoint goes when neither wants it, and only after the one that replaces it is complete. So
    does the state saved at a Ctrl-C once a newer checkpoint is complete.

    A save ranks by the newest value of `monitor` if that was logged since the last ranked save;
    else it serves only as the newest.

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
        ConfigError: arguments that exclude each other, or a `monitor` that nobody logged by the
            first validation or the end of the first epoch; the state is saved before.
    """

    dirpath: str | Path | None = None
    filename: str | None = None
    monitor: str | None = None
    verbose: bool = False
    save_last: bool | None = None
    save_top_k: int = 1
    save_on_exception: bool = False
    save_weights_only: bool = False
    mode: str = "min"
    auto_insert_metric_name: bool = True
    every_n_train_steps: int | None = None
    train_time_interval: timedelta | None = None
    every_n_epochs: int | None = None
    save_on_train_epoch_end: bool | None = None
    enable_version_counter: bool = True
    every: str | Interval | None = field(default=None, kw_only=True)

    state = ("_saved", "_saved_step", "_score", "_fresh", "_asked")
    _folder = Path()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save_top_k < -1 or (self.monitor is None and self.save_top_k > 1):
            what = f"save_top_k={self.save_top_k} cannot be used with monitor={self.monitor!r}"
            raise ConfigError(what, allowed="-1, 0 and 1; with a monitor any number from -1")
        self.every = self._period = self._one_interval()
        self._given = self.dirpath
        only_policy = self.monitor is None and self.save_top_k == 1
        if self.save_last is None or only_policy:
            self.save_last = self.save_top_k != 0

    def _one_interval(self) -> Interval | None:
        """The one interval that was given; every epoch if none was; None if it was 0."""
        time = self.train_time_interval and self.train_time_interval.total_seconds()
        numbers = {"steps": self.every_n_train_steps, "epochs": self.every_n_epochs, "s": time}
        chosen = [f"{number} {unit}" for unit, number in numbers.items() if number]
        chosen += [str(self.every)] if self.every else []
        if len(chosen) > 1:
            allowed = "one of every, every_n_train_steps, train_time_interval, every_n_epochs"
            raise ConfigError("more than one interval is given", allowed=allowed)
        if chosen:
            return Interval.parse(chosen[0], "ModelCheckpoint")
        return None if 0 in numbers.values() else Interval(1, "epochs")

    def start(self) -> None:
        super().start()
        # Name → score, None where it does not rank; in the order in which they were saved.
        self._saved: dict[str, float | None] = {}
        self._saved_step, self._score = -1, None
        # Whether no save has ranked by the value yet; None if validations do not give it.
        self._fresh: bool | None = None

    # When to save

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        super().setup(trainer, module, stage)
        home = self._given or (trainer.run_dir and trainer.run_dir / "checkpoints")
        if self._fitting and home:
            self.dirpath = self._folder = Path(home).expanduser().resolve()
        elif self._fitting and not trainer.options.fast_dev_run:
            raise ConfigError(
                "there is no run folder to save in", mend="ModelCheckpoint(dirpath=…)"
            )

    def on_train_start(self, trainer: Trainer, module: Module) -> None:
        if self._period is not None:
            self.act_every(self._period, trainer, self.save_on_train_epoch_end)
        # What was deleted by hand, or left behind elsewhere, is not there after a resume.
        if not Path(self.last_model_path).exists():
            self._saved_step = -1
        self._saved = {n: score for n, score in self._saved.items() if (self._folder / n).exists()}
        saved = self._saved, self._saved_step
        self._saved, self._saved_step = trainer.strategy.gather(saved, "what was saved")[0]

    def on_validation_start(self, trainer: Trainer, module: Module) -> None:
        self._before = trainer.callback_metrics.get(self.monitor or "")

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        super().on_validation_end(trainer, module)
        if trainer.callback_metrics.get(self.monitor or "") is not self._before:
            self._fresh = True
            # These very weights are saved already: `save` gives them their rank.
            self._asked += self._saved_step == trainer.global_step

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        self.save(trainer)
        self.refuse_missing(trainer)

    def on_fit_end(self, trainer: Trainer, module: Module) -> None:
        if self._period is not None and self.save_last:
            self.save(trainer)
        trainer.wait_for_checkpoints()
        self._sweep(trainer)

    def on_exception(self, trainer: Trainer, module: Module, exception: BaseException) -> None:
        if self.save_on_exception and self._fitting and not isinstance(exception, NonFiniteError):
            self.save(trainer)

    # Saving and deleting

    def save(self, trainer: Trainer) -> None:
        """Save now if a policy wants this state; one that is saved already is ranked at most."""
        step, before = trainer.global_step, self.state_dict()
        if step == 0 or trainer.options.fast_dev_run:
            return
        trainer.wait_for_checkpoints()
        self._sweep(trainer)
        score = self._take_score(trainer)
        if step == self._saved_step:
            if score is not None:
                self._saved[next(reversed(self._saved))] = score
            return
        # Entered before it is written, so that a checkpoint knows itself.
        name = self._free_name(trainer)
        self._saved = {n: s for n, s in self._saved.items() if n != name} | {name: score}
        if not (self.save_last or self.save_top_k == -1 or name in self._ranking()):
            self._saved = before["saved"]
            return
        self._saved_step = step
        try:
            weights_only = self.save_weights_only
            trainer.save_checkpoint(self._path(name), weights_only=weights_only, background=True)
        except BaseException:
            self.load_state_dict(before)
            raise
        if self.verbose:
            trainer.lightning_module.print(f"step {step}: saved {name} ({self.monitor}={score})")

    def _take_score(self, trainer: Trainer) -> float | None:
        """The monitored value; None if a validation gave it and a save has taken it, or for NaN."""
        if self._fresh is False:
            return None
        self._score, self._fresh = self.value(trainer), False if self._fresh else None
        return None if self._score is None or math.isnan(self._score) else self._score

    def _ranking(self) -> list[str]:
        """The best checkpoints, the best first and of equal ones the earlier."""
        scores = {name: score for name, score in self._saved.items() if score is not None}
        order = sorted(scores, key=scores.__getitem__, reverse=self.mode == "max")
        return order if self.save_top_k == -1 else order[: self.save_top_k]

    def _sweep(self, trainer: Trainer) -> None:
        """Delete what no policy wants; called when all that was saved so far is complete."""
        kept = {*self._ranking(), *list(self._saved)[-1:]}
        gone = [n for n in self._saved if n not in kept and self.save_top_k != -1]
        paths = [(self._folder / name).resolve() for name in gone] + self._interrupted()
        for path in paths if trainer.is_global_zero else ():
            if self._folder in path.parents and path.is_dir():
                trainer.discard_checkpoint(path)
        self._saved = {n: score for n, score in self._saved.items() if n not in gone}

    def _interrupted(self) -> list[Path]:
        """States that the Trainer saved at a signal and that are older than our newest one."""
        if self.save_weights_only or not any(self._folder.glob("interrupted-*")):
            return []
        from renshu.checkpoints import listing

        paths, newest = [path for path, _ in listing(self._folder)], Path(self.last_model_path)
        older = paths[: paths.index(newest)] if newest in paths else []
        return [path for path in older if path.name.startswith("interrupted-")]

    def _free_name(self, trainer: Trainer) -> str:
        now = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        name = stem = self.format_checkpoint_name({**trainer.callback_metrics, **now})
        version = 0
        while self.enable_version_counter and (self._folder / name).exists():
            version += 1
            name = f"{stem}-v{version}"
        return trainer.strategy.gather(name, "a checkpoint's name")[0]

    def format_checkpoint_name(self, metrics: dict[str, Any]) -> str:
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

        return _FIELD.sub(write, self.filename or _NAMES[self.auto_insert_metric_name])

    def _path(self, name: str) -> str:
        return str(self._folder / name) if name else ""

    # What was saved

    @property
    def best_k_models(self) -> dict[str, Tensor]:
        """Path to score (0-dim float64) of the best checkpoints, the best first."""
        best = self._ranking()
        return {self._path(n): torch.tensor(self._saved[n], dtype=torch.float64) for n in best}

    @property
    def best_model_path(self) -> str:
        """The best checkpoint; without `monitor` the newest; empty if there is none."""
        return next(iter(self.best_k_models), "") if self.monitor else self.last_model_path

    @property
    def best_model_score(self) -> Tensor | None:
        """Score of the best checkpoint, 0-dim float64."""
        return next(iter(self.best_k_models.values()), None)

    @property
    def last_model_path(self) -> str:
        """The newest checkpoint; empty if there is none."""
        return self._path(next(reversed(self._saved), ""))

    @property
    def current_score(self) -> Tensor | None:
        """The monitored value at the last save, 0-dim float64."""
        return None if self._score is None else torch.tensor(self._score, dtype=torch.float64)

    def state_dict(self) -> dict[str, Any]:
        # For whoever asks for the best one later, in another process.
        return super().state_dict() | {"best": Path(self.best_model_path).name * bool(self.monitor)}

    @property
    def state_key(self) -> str:
        return f"{super().state_key} every {self.every}"
