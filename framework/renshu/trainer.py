"""The Trainer: reads the options, decides every setting once, gives the loops a finished plan."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor

from renshu import loops, planning, resume
from renshu.callbacks.callback import Callback
from renshu.data import DataModule
from renshu.devices import algorithms, resolve
from renshu.errors import ConfigError, NonFiniteError, near
from renshu.feed import Feed
from renshu.intervals import Progress
from renshu.loggers.logger import Logger
from renshu.messages import say
from renshu.module import Module
from renshu.options import TrainerOptions
from renshu.plan import Plan, listeners
from renshu.precision import Precision
from renshu.results import Results, to_host
from renshu.runs import RunFolder, find_checkpoint, open_run, run_of, runs_root
from renshu.seeds import Isolation, derive, run_seed
from renshu.signals import Signals
from renshu.strategies import make_strategy
from renshu.weights import finite_parameters, load_weights, read_state

P = ParamSpec("P")


def _options_of(
    options: Callable[P, TrainerOptions],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Trainer, P], None]]:
    """Give `Trainer.__init__` the options' signature, so that they are named in one place only."""

    def decorate(init: Callable[..., None]) -> Callable[Concatenate[Trainer, P], None]:
        init.__doc__ = options.__doc__
        return init

    return decorate


class Trainer:
    """Trains and evaluates Modules. The arguments are those of `TrainerOptions`."""

    @_options_of(TrainerOptions)
    def __init__(self, **given: Any) -> None:
        known = TrainerOptions.__dataclass_fields__
        for name in given.keys() - known.keys():
            raise ConfigError(
                f"Trainer has no option {name!r}", where="Trainer(…)", mend=near(name, known)
            )
        self.options = options = TrainerOptions(**given)
        planning.check_options(options)
        devices = resolve(options.accelerator, options.devices)
        self.strategy = make_strategy(options.strategy, devices, options.num_nodes)
        self.precision = Precision(options.precision, devices[0])
        self.seed = run_seed(options.seed)
        self.callbacks: list[Callback] = self._make_callbacks()
        self.loggers: list[Logger] = self._make_loggers()
        self.epoch_metrics: dict[str, Tensor] = {}
        self.logged_metrics: dict[str, float] = {}
        self.optimizer_handles: list[Any] = []
        self.sanity_checking = False
        self.interrupted = False
        self.state_stage: str | None = None
        self._outer_stage: str | None = None
        self._bar_metrics: dict[str, Tensor] = {}
        self._plan: Plan | None = None
        self._run: RunFolder | None = None
        self._saver: Any = None
        self._should_stop = False

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
        if isinstance(train_dataloaders, DataModule):
            train_dataloaders, datamodule = None, train_dataloaders
        plan = self._begin(model, datamodule)
        with self._running(plan, "fit"):
            state, where = self._open(ckpt_path)
            self._plan_fit(plan, train_dataloaders, val_dataloaders, state, where)
            with Signals(plan), torch.autograd.set_detect_anomaly(self.options.detect_anomaly):
                loops.fit(plan)
                loops.refuse_non_finite(plan)
            if plan.signal is None:
                plan.call("on_fit_end")
            else:
                self._stop_and_save(plan)
        if plan.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)

    def validate(
        self,
        model: Module | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: DataModule | None = None,
    ) -> list[dict[str, float]]:
        """Run the validation loop once; the logged values, one dict a loader."""
        return self._evaluate("validation", model, dataloaders, ckpt_path, verbose, datamodule)

    def test(
        self,
        model: Module | None = None,
        dataloaders: Any = None,
        ckpt_path: str | Path | None = None,
        verbose: bool = True,
        datamodule: DataModule | None = None,
    ) -> list[dict[str, float]]:
        """Run the test loop once; the logged values, one dict a loader."""
        return self._evaluate("test", model, dataloaders, ckpt_path, verbose, datamodule)

    def predict(
        self,
        model: Module | None = None,
        dataloaders: Any = None,
        datamodule: DataModule | None = None,
        return_predictions: bool = True,
        ckpt_path: str | Path | None = None,
    ) -> list[Any]:
        """Outputs of predict_step in order: a list of batches, or one such list a loader."""
        plan, feeds = self._plan_evaluation("predict", model, dataloaders, ckpt_path, datamodule)
        outputs: list[list[Any]] = [[] for _ in feeds]
        with self._running(plan, "predict"), Signals(plan):
            for number, output in loops.predict(plan, feeds):
                if return_predictions:
                    outputs[number].append(output)
        self._raise_interrupt(plan)
        return outputs[0] if len(outputs) == 1 else outputs

    def _evaluate(
        self,
        stage: str,
        model: Module | None,
        dataloaders: Any,
        ckpt_path: str | Path | None,
        verbose: bool,
        datamodule: DataModule | None,
    ) -> list[dict[str, float]]:
        plan, feeds = self._plan_evaluation(stage, model, dataloaders, ckpt_path, datamodule)
        with self._running(plan, stage), Signals(plan):
            values = loops.evaluate(plan, stage, feeds)
        self._raise_interrupt(plan)
        if verbose:
            for number, found in enumerate(values):
                text = " ".join(f"{key}={value:.6g}" for key, value in found.items())
                say(f"{stage} {number}: {text}" if len(values) > 1 else f"{stage}: {text}")
        return values

    # --- deciding

    def _make_callbacks(self) -> list[Callback]:
        """The given callbacks and those that are on by default; those that save come last."""
        from renshu import callbacks as built_in

        options, given = self.options, self.options.callbacks or []
        found = list(given) if isinstance(given, (list, tuple)) else [given]
        quiet = options.barebones
        if _on(options.enable_progress_bar, quiet) and not _has(found, built_in.ProgressBar):
            found.append(built_in.ProgressBar())
        if _on(options.enable_model_summary, quiet) and not _has(found, built_in.ModelSummary):
            found.append(built_in.ModelSummary())
        saves = _on(options.enable_checkpointing, quiet or bool(options.fast_dev_run))
        if not saves and _has(found, built_in.ModelCheckpoint) and not options.fast_dev_run:
            raise ConfigError(
                "a ModelCheckpoint is given and enable_checkpointing is False",
                allowed="one of them",
            )
        if saves and not _has(found, built_in.ModelCheckpoint):
            found.append(built_in.ModelCheckpoint())
        self._saves = saves
        return sorted(found, key=lambda callback: isinstance(callback, built_in.ModelCheckpoint))

    def _make_loggers(self) -> list[Logger]:
        from renshu.loggers import make_loggers

        if self.options.barebones or self.options.fast_dev_run:
            return []
        return make_loggers(self.options.logger)

    def _begin(self, module: Module, datamodule: DataModule | None) -> Plan:
        """Attach module and data, run prepare_data and find who listens to what."""
        if not isinstance(module, Module):
            raise ConfigError(
                f"fit got a {type(module).__name__}", allowed="a renshu.Module, with training_step"
            )
        own = module.configure_callbacks() or []
        callbacks = self.callbacks + (list(own) if isinstance(own, (list, tuple)) else [own])
        module.trainer = self
        if datamodule is not None:
            datamodule.trainer = self
        plan = Plan(
            trainer=self,
            module=module,
            datamodule=datamodule,
            callbacks=callbacks,
            strategy=self.strategy,
            precision=self.precision,
            hooks=listeners(self, module, callbacks),
            transfers=[],
            results=Results("train", self.strategy.device),
        )
        plan.transfers = planning.transfers(plan)
        self._plan, self._should_stop, self.interrupted = plan, False, False
        self.epoch_metrics, self._bar_metrics = {}, {}
        return plan

    def _set_up(self, plan: Plan, stage: str) -> None:
        """prepare_data and setup of data module, callbacks and module, in Lightning's order."""
        if plan.datamodule is not None:
            plan.datamodule.prepare_data()
        plan.module.prepare_data()
        if plan.datamodule is not None:
            plan.datamodule.setup(stage)
        for callback in plan.callbacks:
            callback.setup(self, plan.module, stage)
        plan.module.setup(stage)
        plan.module.configure_model()

    def _open(self, ckpt_path: str | Path | None) -> tuple[dict[str, Any] | None, str]:
        """Find and read the checkpoint, and open the run's folder."""
        options, path = self.options, None
        root = runs_root(options.default_root_dir)
        if ckpt_path is not None:
            path = find_checkpoint(ckpt_path, root, options.run, self._best())
        if not options.fast_dev_run and (self._saves or self.loggers):
            home = None if path is None or options.run is not None else run_of(path)
            if home is not None:
                self._run = RunFolder(home)
                self._run.lock()
            else:
                self._run = open_run(root, options.run, resume=ckpt_path is not None)
        if path is None:
            return None, ""
        say(f"resuming from {path}")
        state = read_state(path)
        self.seed = state.get("seed", self.seed)
        return state, str(path)

    def _plan_fit(
        self, plan: Plan, train: Any, val: Any, state: dict[str, Any] | None, where: str
    ) -> None:
        """Everything before the first batch."""
        options, module = self.options, plan.module
        self._set_up(plan, "fit")
        self._plan_loaders(plan, train, val)
        planning.plan_limits(plan, options)
        if state is not None:
            resume.restore_model(plan, state, where)
        self.strategy.place(module)
        self.precision.convert_module(module)
        plan.sanity_batches = planning.sanity_batches(plan, options)
        planning.plan_optimisation(plan, options)
        plan.call("on_fit_start")
        self._open_loggers(plan, resumed=state is not None)
        if state is not None:
            resume.restore_training(plan, state, where)
            resume.restore_random(state)
        if self._saves and not options.fast_dev_run:
            self._refuse_unsaveable(plan)

    def _plan_loaders(self, plan: Plan, train: Any, val: Any) -> None:
        options = self.options
        found = planning.loaders(plan.module, plan.datamodule, train, "fit")
        if not found:
            raise ConfigError(
                "there is no training loader",
                mend="trainer.fit(module, loader), or define train_dataloader",
            )
        plan.feed = planning.feed(self, found[0], "train", planning.stage_limit(options, "fit"))
        if options.overfit_batches and hasattr(plan.feed, "order"):
            plan.feed.order.shuffle = False  # type: ignore[attr-defined]
        if not planning.overrides(plan.module, "validation_step", Module):
            return
        limit = planning.stage_limit(options, "validation")
        for number, loader in enumerate(
            planning.loaders(plan.module, plan.datamodule, val, "validation")
        ):
            plan.val_feeds.append(planning.feed(self, loader, f"val/{number}", limit))

    def _plan_evaluation(
        self,
        stage: str,
        model: Module | None,
        dataloaders: Any,
        ckpt_path: str | Path | None,
        datamodule: DataModule | None,
    ) -> tuple[Plan, list[Feed]]:
        if isinstance(dataloaders, DataModule):
            dataloaders, datamodule = None, dataloaders
        before = self._plan
        if model is None:
            if before is None:
                raise ConfigError(f"{stage} needs a module", mend=f"trainer.{stage}(module, …)")
            model = before.module
            datamodule = datamodule or (before.datamodule if dataloaders is None else None)
        if stage != "predict" and not planning.overrides(model, f"{stage}_step", Module):
            raise ConfigError(f"{type(model).__name__} has no {stage}_step")
        path = self._evaluated_checkpoint(ckpt_path)
        progress = Progress() if before is None else before.progress
        plan = self._begin(model, datamodule)
        plan.progress = progress
        self._set_up(plan, "validate" if stage == "validation" else stage)
        found = planning.loaders(model, datamodule, dataloaders, stage)
        if not found:
            raise ConfigError(
                f"there is no loader for {stage}", mend=f"trainer.{stage}(module, loader)"
            )
        limit = planning.stage_limit(self.options, stage)
        feeds = [planning.feed(self, x, f"{stage}/{i}", limit) for i, x in enumerate(found)]
        if path is not None:
            self._load_weights(plan, path)
        self.strategy.place(model)
        self.precision.convert_module(model)
        if self.precision.autocasts or self.precision.casts:
            plan.forward = self.precision.forward()
        plan.val_feeds = feeds
        return plan, feeds

    def _evaluated_checkpoint(self, ckpt_path: str | Path | None) -> Path | None:
        if ckpt_path is None:
            return None
        name = self.options.run or (self._run.path.name if self._run else None)
        root = runs_root(self.options.default_root_dir)
        return find_checkpoint(ckpt_path, root, name, self._best())

    def _load_weights(self, plan: Plan, path: Path) -> None:
        state = read_state(path)
        plan.module.on_load_checkpoint(state)
        load_weights(plan.module, state["state_dict"], where=str(path))

    def _open_loggers(self, plan: Plan, resumed: bool) -> None:
        if self._run is None:
            return
        from renshu.environment import write_environment

        fingerprint = plan.datamodule.fingerprint() if plan.datamodule is not None else None
        write_environment(self._run.path, seed=self.seed, fingerprint=fingerprint)
        params = dict(plan.module.hyper_parameters_to_save())
        if plan.datamodule is not None:
            params.update(plan.datamodule.hyper_parameters_to_save())
        for logger in self.loggers:
            logger.open(self._run.path, resume=resumed)
            if params:
                logger.log_hyperparams(params)

    def reload_loaders(self, plan: Plan) -> None:
        """At the start of an epoch: ask for the training loader again where the options say so."""
        every = self.options.reload_dataloaders_every_n_epochs
        if every and plan.progress.epoch and plan.progress.epoch % every == 0:
            assert plan.feed is not None
            plan.feed.close()
            found = planning.loaders(plan.module, plan.datamodule, None, "fit")
            if found:
                limit = planning.stage_limit(self.options, "fit")
                plan.feed = planning.feed(self, found[0], "train", limit)

    # --- around a stage

    @contextmanager
    def _running(self, plan: Plan, stage: str) -> Iterator[None]:
        """Whatever happens: hooks are told, workers end, loggers and saves are complete."""
        status = "failed"
        self.enter_stage("train" if stage == "fit" else stage)
        options = self.options
        try:
            with algorithms(options.deterministic, options.benchmark):
                yield
            status = "success" if plan.signal is None else "interrupted"
        except BaseException as error:
            plan.module.__dict__["_results"] = None
            for callback in plan.callbacks:
                callback.on_exception(self, plan.module, error)
            raise
        finally:
            self._close(plan, stage, status)

    def _close(self, plan: Plan, stage: str, status: str) -> None:
        plan.module.__dict__["_results"] = None
        for feed in [plan.feed, *plan.val_feeds]:
            if feed is not None:
                feed.close()
        try:
            self.wait_for_checkpoints()
        finally:
            if stage == "fit":
                for logger in self.loggers:
                    logger.finalize(status)
            if status != "failed":
                self._tear_down(plan, "validate" if stage == "validation" else stage)
            if self._saver is not None:
                self._saver.close()
                self._saver = None
            if self._run is not None:
                self._run.unlock()
            self.state_stage = self._outer_stage = None

    def _tear_down(self, plan: Plan, stage: str) -> None:
        if plan.datamodule is not None:
            plan.datamodule.teardown(stage)
        for callback in plan.callbacks:
            callback.teardown(self, plan.module, stage)
        plan.module.teardown(stage)

    def _stop_and_save(self, plan: Plan) -> None:
        """After a signal: save where the run stands, and say how to go on."""
        self.interrupted = True
        if self._run is None or not self._saves:
            say("stopped; nothing was saved, since checkpoints are off")
            return
        name = f"interrupted-step={plan.progress.step:06d}-batch={plan.progress.batches:06d}"
        path = self.save_checkpoint(self._run.checkpoints / name)
        say(
            f"stopped at step {plan.progress.step}; the state is saved in {path}\n"
            f'        to go on: Trainer(run="{self._run.path.name}", …).fit(…, ckpt_path="last")'
        )

    @staticmethod
    def _raise_interrupt(plan: Plan) -> None:
        # An evaluation cut short has no result that could be returned.
        if plan.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        if plan.signal is not None:
            raise KeyboardInterrupt

    def enter_stage(self, stage: str) -> None:
        self._outer_stage, self.state_stage = self.state_stage, stage

    def leave_stage(self) -> None:
        self.state_stage, self._outer_stage = self._outer_stage, None

    @contextmanager
    def sanity(self, plan: Plan) -> Iterator[list[Feed]]:
        """A few validation batches that leave no trace in generators, metrics and limits."""
        limits = [feed.limit for feed in plan.val_feeds]
        isolation = Isolation()
        isolation.seed(derive(self.seed, "sanity"))
        self.sanity_checking = True
        for feed in plan.val_feeds:
            feed.limit = min(plan.sanity_batches, 2**62 if feed.limit is None else feed.limit)
        try:
            with isolation:
                yield plan.val_feeds
        finally:
            for feed, limit in zip(plan.val_feeds, limits, strict=True):
                feed.limit = limit
            self.sanity_checking = False
            self.epoch_metrics, self._bar_metrics = {}, {}

    # --- checkpoints

    def save_checkpoint(
        self, filepath: str | Path, weights_only: bool = False, background: bool = False
    ) -> Path:
        """Save the whole state of the fit, or with `weights_only` what using the model needs.

        With `background` it returns when everything is copied; an error of the writing comes up at
        the next save or at the end. Nothing non-finite is ever saved: it raises NonFiniteError.
        """
        from renshu.checkpoints import Saver, snapshot

        plan = self._require_plan()
        self._refuse_non_finite(plan)
        progress = plan.progress
        state = resume.capture(plan, weights_only)
        taken = snapshot(
            {"model": state.pop("state_dict"), **state},
            step=progress.step,
            batches=progress.batches,
            samples=progress.samples,
            epoch=progress.epoch,
        )
        if self._saver is None:
            self._saver = Saver()
        path = Path(filepath)
        self._saver.submit(taken, path, before_publish=self._save_loggers)
        if not background:
            self._saver.wait()
        return path

    def wait_for_checkpoints(self) -> None:
        """Return when every save has become valid; raises what went wrong with one."""
        if self._saver is not None:
            self._saver.wait()

    def _save_loggers(self) -> None:
        for logger in self.loggers:
            logger.save()

    def _refuse_non_finite(self, plan: Plan) -> None:
        loops.refuse_non_finite(plan)
        if plan.check_finite and not finite_parameters(plan.module):
            raise NonFiniteError(
                f"a parameter is NaN or infinite after optimiser step {plan.progress.step}",
                allowed=f"finite numbers; this state was not saved. {self.last_good()}",
                mend="a lower learning rate, gradient_clip_val, precision 32-true or bf16-mixed",
            )

    def _refuse_unsaveable(self, plan: Plan) -> None:
        """Encode the whole state once: what a checkpoint cannot hold is named before training."""
        from renshu.checkpoints.codec import encode
        from renshu.checkpoints.publish import check_space

        if self._run is not None:
            _, tensors = encode(resume.capture(plan), "")
            check_space(self._run.path, sum(t.nbytes for t in tensors.values()))

    def last_good(self) -> str:
        """One sentence on the newest checkpoint, for error messages."""
        from renshu.checkpoints import newest

        found = None
        if self._run is not None:
            self.wait_for_checkpoints()
            found = newest(self._run.checkpoints)
        return f"The last good checkpoint is {found}." if found else "There is no checkpoint yet."

    def _best(self) -> str:
        found = self.checkpoint_callback
        return "" if found is None else found.best_model_path

    def _require_plan(self) -> Plan:
        if self._plan is None:
            raise ConfigError("the Trainer has no module yet", mend="trainer.fit(module, …)")
        return self._plan

    # --- logged values

    def take_epoch_values(self, results: Results) -> dict[str, float]:
        """Reduce an epoch's values, keep them for callbacks and send them to the loggers."""
        found = results.epoch_values()
        read = dict(zip(found, to_host(value for _, value in found.values()), strict=True))
        for name, (entry, value) in found.items():
            self.epoch_metrics[name] = self.epoch_metrics[entry.name] = value
            if entry.prog_bar:
                self._bar_metrics[name] = value
        if self._fitting and not self.sanity_checking:
            self.log_metrics({n: read[n] for n, (entry, _) in found.items() if entry.logger})
        return read

    def log_metrics(self, values: dict[str, float]) -> None:
        """Send values of the current step to the loggers; steps are counted from 0 there."""
        if not values or self._plan is None:
            return
        progress = self._plan.progress
        self.logged_metrics.update(values)
        record = {"epoch": progress.epoch, "samples": progress.samples, **values}
        for logger in self.loggers:
            logger.log_metrics(record, max(progress.step - 1, 0))

    @staticmethod
    def by_loader(values: dict[str, float], loaders: int) -> list[dict[str, float]]:
        """One dict a loader; a name without a loader's suffix stands in all."""
        if loaders == 1:
            return [values]
        suffixes = [f"/dataloader_idx_{number}" for number in range(loaders)]
        return [
            {n: v for n, v in values.items() if n.endswith(s) or not n.endswith(tuple(suffixes))}
            for s in suffixes
        ]

    @property
    def callback_metrics(self) -> dict[str, Any]:
        """Every logged value by name, the newest of each. Tensors on the device."""
        found: dict[str, Any] = dict(self.epoch_metrics)
        results = None if self._plan is None else self._plan.module.__dict__.get("_results")
        if results is not None:
            found.update(results.newest())
            if results.phase == "epoch":
                for name, (entry, value) in results.epoch_values().items():
                    found[name] = found[entry.name] = value
        return found

    @property
    def progress_bar_metrics(self) -> dict[str, Any]:
        """The values logged with prog_bar=True."""
        found: dict[str, Any] = dict(self._bar_metrics)
        if self._plan is not None:
            found.update(self._plan.results.step_values(prog_bar=True))
        return found

    @property
    def last_loss(self) -> Tensor | None:
        """The newest training loss, on the device."""
        return None if self._plan is None else self._plan.loss

    def monitored(self, name: str | None, who: str, strict: bool = True) -> Any:
        """The value that a scheduler watches; ConfigError with the names there are if missing."""
        metrics = self.callback_metrics
        if name in metrics:
            value = metrics[name]
            return float(value) if isinstance(value, Tensor) else value
        if not strict:
            return None
        raise ConfigError(
            f"{who} watches {name!r}, which was not logged",
            allowed=", ".join(sorted(metrics)) or "nothing is logged yet",
            mend=near(str(name), metrics),
        )

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
        plan.call("on_after_backward")

    # --- what is known

    @property
    def should_stop(self) -> bool:
        """Set it to True to end training after this batch."""
        return self._should_stop

    @should_stop.setter
    def should_stop(self, stop: bool) -> None:
        self._should_stop = stop
        if self._plan is not None:
            self._plan.halt = stop or self._plan.signal is not None

    @property
    def progress(self) -> Progress:
        return Progress() if self._plan is None else self._plan.progress

    @property
    def current_epoch(self) -> int:
        """The epoch under way, from 0."""
        return self.progress.epoch

    @property
    def global_step(self) -> int:
        """Optimiser steps so far."""
        return self.progress.step

    @property
    def lightning_module(self) -> Module:
        return self._require_plan().module

    module = model = lightning_module

    @property
    def datamodule(self) -> DataModule | None:
        return None if self._plan is None else self._plan.datamodule

    @property
    def optimizers(self) -> list[Any]:
        return [] if self._plan is None else self._plan.optimizers

    @property
    def lr_scheduler_configs(self) -> list[Any]:
        return [] if self._plan is None else self._plan.schedulers

    @property
    def run_dir(self) -> Path | None:
        """Folder of the run; None when neither logger nor checkpoints need one."""
        return None if self._run is None else self._run.path

    @property
    def log_dir(self) -> str | None:
        return None if self._run is None else str(self._run.path)

    @property
    def default_root_dir(self) -> str:
        return str(runs_root(self.options.default_root_dir).parent)

    @property
    def logger(self) -> Logger | None:
        return self.loggers[0] if self.loggers else None

    @property
    def checkpoint_callback(self) -> Any:
        """The first ModelCheckpoint."""
        return next((c for c in self.callbacks if hasattr(c, "best_model_path")), None)

    @property
    def early_stopping_callback(self) -> Any:
        return next((c for c in self.callbacks if hasattr(c, "patience")), None)

    @property
    def is_global_zero(self) -> bool:
        return self.strategy.is_global_zero

    @property
    def num_training_batches(self) -> int | float:
        """Batches of a training epoch; inf when the loader does not say."""
        length = None if self._plan is None or self._plan.feed is None else self._plan.feed.length
        return math.inf if length is None else length

    @property
    def num_val_batches(self) -> list[int | float]:
        feeds: Iterable[Feed] = [] if self._plan is None else self._plan.val_feeds
        return [math.inf if feed.length is None else feed.length for feed in feeds]

    @property
    def estimated_stepping_batches(self) -> int | float:
        """Optimiser steps of the whole fit; inf when no limit tells. For schedules."""
        return planning.estimated_steps(self._require_plan())

    @property
    def max_epochs(self) -> int | None:
        return self.options.max_epochs if self._plan is None else self._plan.max_epochs

    @property
    def max_steps(self) -> int:
        return self.options.max_steps

    @property
    def accumulate_grad_batches(self) -> int:
        return self.options.accumulate_grad_batches

    @property
    def log_every_n_steps(self) -> int:
        return self.options.log_every_n_steps or 50

    @property
    def _fitting(self) -> bool:
        return "train" in (self.state_stage, self._outer_stage)

    @property
    def training(self) -> bool:
        return self.state_stage == "train"

    @property
    def validating(self) -> bool:
        return self.state_stage == "validation"

    @property
    def testing(self) -> bool:
        return self.state_stage == "test"

    @property
    def predicting(self) -> bool:
        return self.state_stage == "predict"


def _on(choice: bool | None, off: bool) -> bool:
    """An option that is on unless said otherwise or everything of its kind is off."""
    return not off if choice is None else choice


def _has(callbacks: list[Callback], kind: type) -> bool:
    return any(isinstance(callback, kind) for callback in callbacks)
