"""The Trainer: reads the options, decides every setting once, gives the loops a finished plan."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor, nn

from renshu import loops, planning, resume
from renshu.attributes import GONE, KNOWN
from renshu.callbacks.callback import Callback
from renshu.checkpoints import Saver, newest, snapshot
from renshu.checkpoints.codec import encode
from renshu.checkpoints.publish import check_space
from renshu.data import DataModule, as_list
from renshu.devices import algorithms, resolve
from renshu.errors import ConfigError, NonFiniteError, near
from renshu.intervals import Progress
from renshu.loggers import Logger, NoLogger, make_loggers
from renshu.messages import say
from renshu.module import Module
from renshu.options import TrainerOptions
from renshu.plan import VERBS, Plan, overrides
from renshu.precision import Precision
from renshu.profilers import make_profiler
from renshu.report.environment import write_environment
from renshu.results import Results, to_host
from renshu.runs import RunFolder, find_checkpoint, open_run, run_of, runs_root
from renshu.seeds import run_seed
from renshu.signals import Signals
from renshu.strategies import make_strategy
from renshu.weights import load_weights, read_state

P = ParamSpec("P")
_OPTIONS = TrainerOptions.__dataclass_fields__


def _options_of(
    options: Callable[P, TrainerOptions],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Trainer, P], None]]:
    """Give `Trainer.__init__` the options' signature, so that they are named in one place only."""
    return lambda init: init


def _evaluation(stage: str):  # no return type: type checkers then see the method's signature
    """The Trainer's method for validation or test."""

    def evaluate(
        self: Trainer,
        model: Module | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: DataModule | None = None,
    ) -> list[dict[str, float]]:
        plan = self._plan_evaluation(stage, model, dataloaders, ckpt_path, datamodule)
        with self._running(plan), Signals(plan), self.profiler.watching(plan):
            values = loops.evaluate(plan, stage)
        for number, found in enumerate(values if verbose else ()):
            text = " ".join(f"{key} {value:.6g}" for key, value in found.items())
            say(f"{stage} {number}: {text}" if len(values) > 1 else f"{stage}: {text}")
        return values

    evaluate.__doc__ = f"Run the {stage} loop once; the logged values, one dict a loader."
    return evaluate


class Trainer:
    """Trains and evaluates Modules. The arguments are those of `TrainerOptions`.

    What `attributes.KNOWN` lists and every option are attributes as well.
    """

    @_options_of(TrainerOptions)
    def __init__(self, **given: Any) -> None:
        for name in given.keys() - _OPTIONS.keys():
            raise ConfigError(f"Trainer has no option {name!r}", mend=near(name, _OPTIONS))
        self.options = options = TrainerOptions(**given)
        planning.check_options(options)
        several = options.strategy.startswith("ddp")
        devices = resolve(options.accelerator, options.devices, several)
        self.devices_used = devices
        if options.sync_batchnorm and devices[0].type != "cuda":
            said = f"sync_batchnorm=True on {devices[0].type}: torch has it for GPUs"
            raise ConfigError(said, mend="leave it out, or use GroupNorm, which needs no batch")
        self.strategy = make_strategy(options.strategy, devices, options.num_nodes)
        self.precision = Precision(options.precision, devices[0])
        self.callbacks: list[Callback] = self._make_callbacks()
        self.loggers: list[Logger] = [] if options.barebones else make_loggers(options.logger)
        if options.fast_dev_run or not self.strategy.is_global_zero:
            self.loggers = [NoLogger() for _ in self.loggers]
        self.profiler = make_profiler(options.profiler)
        self.logged_metrics: dict[str, float] = {}
        self.interrupted, self._rolled = False, (None, 0)
        self.state_stage: str | None = None
        self._plan: Plan | None = None
        self._run: RunFolder | None = None
        self._saver = Saver()
        self.forget()

    @cached_property
    def seed(self) -> int:
        """The run's seed: given, drawn when it is first needed, or that of the run continued."""
        return self.strategy.gather(run_seed(self.options.seed), "the run's seed")[0]

    # --- the four entries

    def fit(
        self,
        model: Module,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: DataModule | None = None,
        ckpt_path: str | Path | None = None,
    ) -> None:
        """Train a module.

        A second fit starts new counters; `ckpt_path` continues one: a path, a run folder, "last"
        or "best". After Ctrl-C the state is saved, fit returns and `interrupted` is True; after
        SIGTERM it ends with exit code 143.

        Raises:
            ConfigError, DataError, CheckpointError: something cannot work; found before training.
            NonFiniteError: a loss or gradient norm became NaN or infinite.
        """
        plan = self._begin("train", model, train_dataloaders, datamodule)
        with self._running(plan):
            self._plan_fit(plan, train_dataloaders, val_dataloaders, ckpt_path)
            anomalies = torch.autograd.set_detect_anomaly(self.options.detect_anomaly)
            with Signals(plan), anomalies, self.profiler.watching(plan):
                loops.fit(plan)
                loops.refuse_non_finite(plan)
            if plan.signal is None:
                self._end_logging(plan)
                plan.call("on_fit_end")
                self.wait_for_checkpoints()
                for logger in self.loggers:
                    logger.after_save_checkpoint(self.checkpoint_callback)
            else:
                self._stop_and_save(plan)

    validate = _evaluation("validation")
    test = _evaluation("test")

    def predict(
        self,
        model: Module | None = None,
        dataloaders: Any = None,
        datamodule: DataModule | None = None,
        return_predictions: bool = True,
        ckpt_path: str | Path | None = None,
    ) -> list[Any]:
        """Outputs of predict_step in order: a list of batches, or one such list a loader."""
        plan = self._plan_evaluation("predict", model, dataloaders, ckpt_path, datamodule)
        outputs: list[list[Any]] = [[] for _ in plan.val_feeds]
        with self._running(plan), Signals(plan), self.profiler.watching(plan):
            for number, output in loops.predict(plan):
                if return_predictions:
                    outputs[number].append(output)
        if self.strategy.world > 1 and return_predictions:
            outputs = [
                _in_turns(parts)
                for parts in zip(*self.strategy.gather(outputs, "its predictions"), strict=True)
            ]
        return outputs[0] if len(outputs) == 1 else outputs

    # --- deciding

    def _make_callbacks(self) -> list[Callback]:
        """The given callbacks and those that are on by default."""
        from renshu.callbacks import CompileWatch, ModelCheckpoint, ModelSummary, ProgressBar

        options, found = self.options, as_list(self.options.callbacks)
        quiet, trial = options.barebones, bool(options.fast_dev_run)
        saves = options.enable_checkpointing
        self._saves = not (quiet or trial) if saves is None else saves
        if not self._saves and not trial and any(isinstance(c, ModelCheckpoint) for c in found):
            said = "a ModelCheckpoint is given and enable_checkpointing is False"
            raise ConfigError(said, allowed="one of them")
        for kind, choice in (
            (ProgressBar, options.enable_progress_bar),
            (ModelSummary, options.enable_model_summary),
            (ModelCheckpoint, self._saves),
            (CompileWatch, options.compile),
        ):
            wanted = not quiet if choice is None else choice
            if wanted and not any(isinstance(callback, kind) for callback in found):
                found.append(kind())
        return found

    def _begin(self, stage: str, module: Any, loaders: Any, datamodule: Any) -> Plan:
        """Attach module and data, and find who listens to what."""
        if isinstance(loaders, DataModule):
            datamodule = loaders
        if not isinstance(module, Module):
            said = f"{VERBS[stage]} got a {type(module).__name__}"
            raise ConfigError(said, allowed="a renshu.Module, with training_step")
        # A module's own replace those of the same kind; those that save come last.
        own = as_list(module.configure_callbacks())
        others = [c for c in self.callbacks if type(c) not in set(map(type, own))]
        self.callbacks = sorted([*others, *own], key=lambda c: hasattr(c, "best_model_path"))
        module.trainer = self
        if datamodule is not None:
            datamodule.trainer = self
        self._plan = plan = Plan(self, module, datamodule, self.callbacks, stage)
        self.interrupted, self._rolled = False, (None, 0)
        self.strategy.broken = False
        self.forget()
        return plan

    def _set_up(self, plan: Plan) -> None:
        """prepare_data and setup of data module, callbacks and module, in Lightning's order."""
        for owner in (plan.datamodule, plan.module):
            if owner is not None and self.strategy.is_global_zero:
                owner.prepare_data()
        self.strategy.gather(None, "prepare_data")  # nobody reads before it is done
        self._tell_all(plan, "setup")
        plan.module.configure_model()

    def _tell_all(self, plan: Plan, name: str) -> None:
        """`setup` or `teardown`."""
        verb = VERBS[plan.stage]
        if plan.datamodule is not None:
            getattr(plan.datamodule, name)(verb)
        for callback in plan.callbacks:
            getattr(callback, name)(self, plan.module, verb)
        getattr(plan.module, name)(verb)

    def _plan_fit(self, plan: Plan, train: Any, val: Any, ckpt_path: str | Path | None) -> None:
        """Everything before the first batch."""
        module, state = plan.module, None
        path = self._find(ckpt_path, self.options.run)
        self._open_run(path, resume=ckpt_path is not None)
        if path is not None:
            say(f"resuming from {path}")
            state = read_state(path)
            if "seed" in state:
                self.seed = state["seed"]
        self._set_up(plan)
        if state is not None:
            resume.restore_model(plan, state, str(path))
        plan.feed = planning.feeds(plan, train, "train")[0]
        if overrides(module, "validation_step", Module):
            plan.val_feeds = planning.feeds(plan, val, "validation", needed=False)
        planning.plan_limits(plan)
        if self.options.sync_batchnorm and self.strategy.world > 1:
            for name, part in module.named_children():
                setattr(module, name, nn.SyncBatchNorm.convert_sync_batchnorm(part))
        self.strategy.place(module)
        self.precision.convert_module(module)
        if self.options.compile:
            for part in module.children():
                part.compile()
        planning.plan_optimisation(plan)
        plan.call("on_fit_start")
        self._open_loggers(plan, resumed=state is not None)
        if state is not None:
            resume.restore_training(plan, state, str(path))
        if self._run is not None and self.is_global_zero:
            # Only now: a resume that is refused leaves the run's files as they were.
            data = plan.datamodule
            fingerprint = None if data is None else data.fingerprint()
            write_environment(self._run.path, seed=self.seed, fingerprint=fingerprint)
        if self._saves and not self.options.fast_dev_run:
            self._refuse_unsaveable(plan)

    def _plan_evaluation(self, stage: str, module: Any, loaders: Any, path: Any, data: Any) -> Plan:
        self.strategy.broken = False
        if module is None:
            before = self._require_plan()
            module, best = before.module, getattr(self.checkpoint_callback, "best_model_path", "")
            if path is None and best:
                path = best
                say(
                    f"measuring the best checkpoint, {best}; with the module given, its weights now"
                )
            data = data or (before.datamodule if loaders is None else None)
        if stage != "predict" and not overrides(module, f"{stage}_step", Module):
            raise ConfigError(f"{type(module).__name__} has no {stage}_step")
        path = self._find(path, self.options.run or (self._run and self._run.path.name))
        progress = self.progress
        plan = self._begin(stage, module, loaders, data)
        plan.progress = progress
        self._set_up(plan)
        plan.val_feeds = planning.feeds(plan, loaders, stage)
        self.strategy.place(module)
        self.precision.convert_module(module)
        if path is not None:
            state = read_state(path)
            module.on_load_checkpoint(state)
            load_weights(module, state["state_dict"], where=str(path))
        return plan

    def _find(self, ckpt_path: str | Path | None, run: str | None) -> Path | None:
        if ckpt_path is None:
            return None
        best = getattr(self.checkpoint_callback, "best_model_path", "")
        root, found = runs_root(self.options.default_root_dir), None
        if self.strategy.is_global_zero:
            found = find_checkpoint(ckpt_path, root, run, best)
        return self.strategy.gather(found, "the checkpoint to load")[0]

    def _open_run(self, path: Path | None, resume: bool) -> None:
        """Lock the run's folder: the one of the checkpoint at `path` unless another is named."""
        options = self.options
        if options.fast_dev_run or not (self._saves or self.loggers):
            return
        home = None if path is None or options.run is not None else run_of(path)
        if self.strategy.is_global_zero:
            root = runs_root(options.default_root_dir)
            self._run = RunFolder(home) if home else open_run(root, options.run, resume=resume)
            self._run.lock()
        self._run = self._run or RunFolder(Path())
        self._run.path = self.strategy.gather(self._run.path, "the run's folder")[0]

    def _open_loggers(self, plan: Plan, resumed: bool) -> None:
        if self._run is None:
            return
        data = plan.datamodule
        params = plan.module.hyper_parameters_to_log()
        params |= {} if data is None else data.hyper_parameters_to_log()
        for logger in self.loggers:
            logger.open(self._run.path, resume=resumed)
            if params:
                logger.log_hyperparams(params)

    # --- around a stage

    @contextmanager
    def _running(self, plan: Plan) -> Iterator[None]:
        """Whatever happens: hooks are told, workers end, loggers and saves are complete."""
        status, options = "failed", self.options
        self.state_stage = plan.stage
        try:
            with algorithms(options.deterministic, options.benchmark):
                yield
            plan.agree()
            status = "success" if plan.signal is None else "interrupted"
        except BaseException as error:
            plan.module.__dict__["_results"] = None
            self.strategy.broken = True
            plan.call("on_exception", error)
            for lost in filter(None, (feed.lost_worker(error) for feed in plan.feeds)):
                raise lost from error
            raise
        finally:
            self._close(plan, status)
        if plan.signal is not None:
            # Whoever leaves with an error has the launcher end the others, and one of them saves.
            self.strategy.gather(None, "its end after a signal")
        if plan.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if plan.signal is not None and plan.stage != "train":
            # An evaluation cut short has no result that could be returned.
            raise KeyboardInterrupt

    def _end_logging(self, plan: Plan) -> None:
        """What was logged is kept; from here on log() would be lost, and says so."""
        if plan.stage == "train":
            self.epoch_metrics = plan.results.stepped() | self.epoch_metrics
        plan.module.__dict__["_results"] = None

    def _close(self, plan: Plan, status: str) -> None:
        self._end_logging(plan)
        plan.step = plan.module.training_step  # a strategy's holds its group's threads
        for feed in plan.feeds:
            feed.close()
        try:
            self.wait_for_checkpoints()
        finally:
            if plan.stage == "train":
                for logger in self.loggers:
                    logger.finalize(status)
            if status != "failed":
                self._tell_all(plan, "teardown")
            if self._run is not None:
                self._run.unlock()
            self.state_stage = None

    def _stop_and_save(self, plan: Plan) -> None:
        """After a signal: save where the run stands, and say how to go on."""
        self.interrupted = True
        if self._run is None or not self._saves:
            say("stopped; nothing was saved, since checkpoints are off")
            return
        name = f"interrupted-step={plan.progress.step:06d}-batch={plan.progress.batches:06d}"
        path = self.save_checkpoint(self._run.checkpoints / name)
        say(f"stopped at step {plan.progress.step}; the state is saved in {path}")
        say(f'to go on: Trainer(run="{self._run.path.name}") and ckpt_path="last"')

    # --- checkpoints

    def save_checkpoint(
        self, filepath: str | Path, weights_only: bool = False, background: bool = False
    ) -> Path:
        """Save the whole state of the fit, or with `weights_only` what using the model needs.

        With `background` it returns when everything is copied; an error of the writing comes up at
        the next save or at the end. Nothing non-finite is ever saved: it raises NonFiniteError.
        """
        plan, path = self._require_plan(), Path(filepath)
        loops.refuse_non_finite(plan, weights=True)
        state = resume.capture(plan, weights_only)
        if not self.strategy.is_global_zero:
            return path
        state = {"model": state.pop("state_dict"), **state}
        counts = ("step", "batches", "samples", "epoch")
        taken = snapshot(state, **{name: getattr(plan.progress, name) for name in counts})
        self._saver.submit(taken, path, before_publish=self._save_loggers)
        if not background:
            self._saver.wait()
        return path

    def wait_for_checkpoints(self) -> None:
        """Return when every save has become valid; raises what went wrong with one."""
        self._saver.wait()

    def discard_checkpoint(self, path: Path) -> None:
        """Delete a checkpoint in the background, after the saves that were begun before."""
        self._saver.discard(path)

    def _save_loggers(self) -> None:
        for logger in self.loggers:
            logger.save()

    def _refuse_unsaveable(self, plan: Plan) -> None:
        """Encode the whole state once: what a checkpoint cannot hold is named before training."""
        if self._run is not None:
            _, tensors = encode(resume.capture(plan), "")
            check_space(self._run.path, sum(t.nbytes for t in tensors.values()))

    def roll_back(self, error: NonFiniteError) -> None:
        """Put the newest checkpoint back; the fourth time for the same one it raises the error."""
        plan = self._require_plan()
        self.wait_for_checkpoints()
        found = newest(self._run.checkpoints) if self._run and self.is_global_zero else None
        path = self.strategy.gather(found, "a rollback")[0]
        self._rolled = (path, self._rolled[1] + 1 if path == self._rolled[0] else 1)
        if path is None or self._rolled[1] > 3:
            raise error
        say(f"{error.what}: back to {path.name}; the batches since are left out")
        resume.roll_back(plan, path)

    def agree_on(self, value: float | None) -> float | None:
        """A watched value as all processes decide by it: the mean of those that have one."""
        found = [v for v in self.strategy.gather(value, "a watched value") if v is not None]
        if not found:
            return None
        return found[0] if len(set(found)) == 1 else fmean(found)

    def last_good(self) -> str:
        """One sentence on the newest checkpoint, for error messages."""
        self.wait_for_checkpoints()
        found = None if self._run is None else newest(self._run.checkpoints)
        return f"The last good checkpoint is {found}." if found else "There is no checkpoint yet."

    def _require_plan(self) -> Plan:
        if self._plan is None:
            raise ConfigError("the Trainer has no module yet", mend="trainer.fit(module, …)")
        return self._plan

    # --- logged values

    def forget(self) -> None:
        """No value is logged yet: at the start, and after the sanity check."""
        self.sanity_checking = False
        self.epoch_metrics: dict[str, Tensor] = {}
        self._bar_metrics: dict[str, Tensor] = {}

    def take_epoch_values(self, results: Results) -> dict[str, float]:
        """Reduce an epoch's values, keep them for callbacks and send them to the loggers."""
        results.synchronise(self.strategy)
        found = results.epoch_values()
        read = dict(zip(found, to_host(value for _, value in found.values()), strict=True))
        for name, (entry, value) in found.items():
            self.epoch_metrics[name] = self.epoch_metrics[entry.name] = value
            if entry.prog_bar:
                self._bar_metrics[name] = value
        if self._run is not None and not self.sanity_checking:
            self.log_metrics({n: read[n] for n, (entry, _) in found.items() if entry.logger})
        return read

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Send values of the current or a given step to the loggers; steps count from 0 there."""
        if values and self._plan is not None:
            progress = self._plan.progress
            self.logged_metrics.update(values)
            record = {"epoch": progress.epoch, "samples": progress.samples, **values}
            # The step under way: that of a window that is open, or the one just done.
            under_way = progress.step - (self._plan.window.batches == 0)
            for logger in self.loggers:
                logger.log_metrics(record, max(under_way, 0) if step is None else step)

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """Every logged value by name, the newest of each. Tensors on the device."""
        results = None if self._plan is None else self._plan.module._results
        return self.epoch_metrics | ({} if results is None else results.newest())

    @property
    def progress_bar_metrics(self) -> dict[str, Any]:
        """The values logged with prog_bar=True."""
        newest = {} if self._plan is None else self._plan.results.step_values(prog_bar=True)
        return self._bar_metrics | newest

    # --- manual optimisation

    def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Module.manual_backward comes here."""
        plan = self._require_plan()
        if plan.automatic:
            raise ConfigError("manual_backward needs automatic_optimization = False")
        plan.call("on_before_backward", loss)
        if plan.precision.scaler is not None:
            loss = plan.precision.scaler.scale(loss)
        plan.module.backward(loss, *args, **kwargs)
        if not plan.alone:
            grads = [p.grad for p in plan.module.parameters() if p.grad is not None]
            self.strategy.average(grads)
        plan.call("on_after_backward")

    def renew_step(self) -> None:
        """To be called after parameters were frozen or unfrozen: their gradients are averaged."""
        self._require_plan().choose_step()

    # --- what is known

    @property
    def accumulate_grad_batches(self) -> int:
        """Batches an optimiser step; a callback may set it when an epoch starts."""
        return self._plan.accumulate if self._plan else self.options.accumulate_grad_batches

    @accumulate_grad_batches.setter
    def accumulate_grad_batches(self, batches: int) -> None:
        self._require_plan().accumulate_over(batches)

    @property
    def should_stop(self) -> bool:
        """Whether training ends after this batch; set it to True to end it."""
        return self._plan is not None and self._plan.halt

    @should_stop.setter
    def should_stop(self, stop: bool) -> None:
        if self._plan is not None:
            self._plan.halt = stop or self._plan.signal is not None

    @property
    def progress(self) -> Progress:
        return Progress() if self._plan is None else self._plan.progress

    @property
    def current_epoch(self) -> int:
        """The epoch under way, from 0; after a fit how many there were."""
        fitting = self._plan is not None and self._plan.stage == "train" and self.state_stage
        return self.progress.epoch if fitting else self.progress.epochs

    @property
    def global_step(self) -> int:
        """Optimiser steps so far."""
        return self.progress.step

    @property
    def run_dir(self) -> Path | None:
        """Folder of the run; None when neither logger nor checkpoints need one."""
        return None if self._run is None else self._run.path

    def init_module(self) -> AbstractContextManager[Any]:
        """`with trainer.init_module():` parameters are made on the device of the run."""
        return self.strategy.device

    def print(self, *args: Any, **kwargs: Any) -> None:
        """`print` in the first process only."""
        if self.strategy.is_global_zero:
            print(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in KNOWN:
            return KNOWN[name](self)
        if name in _OPTIONS:
            return getattr(self.options, name)
        hint = GONE.get(name) or near(name, [*vars(Trainer), *KNOWN, *_OPTIONS])
        raise AttributeError(f"Trainer has no attribute {name!r}" + (f"; {hint}" if hint else ""))


def _in_turns(parts: tuple[list[Any], ...]) -> list[Any]:
    """The processes' batches in the order of the data: of each step the first one's first."""
    return [
        batch
        for step in zip_longest(*parts, fillvalue=parts)
        for batch in step
        if batch is not parts
    ]
