"""From options to a finished run: the one place that calls a task's parts in order."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renshu.callbacks.callback import Callback
from renshu.cli import trained, yaml_file
from renshu.cli.main import Session
from renshu.cli.parser import Request
from renshu.errors import ConfigError
from renshu.loggers.files import write_atomically
from renshu.messages import say
from renshu.report import environment
from renshu.runs import run_of, runs_root
from renshu.seeds import seed_everything
from renshu.trainer import Trainer


@dataclass(frozen=True)
class Result:
    """What a training left.

    Attributes:
        run_dir: its folder; None when nothing was written.
        report: report.html; None without one.
        figures: main figures of the test part.
    """

    run_dir: Path | None
    report: Path | None = None
    figures: dict[str, str] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """What is where, the main figures, and what to type next."""
        if self.run_dir is None:
            return ["done; nothing was written"]
        run_dir = shlex.quote(str(self.run_dir))
        rows = [("test", f"{name} {value}") for name, value in self.figures.items()] + [
            ("model", self.run_dir / trained.MODEL),
            ("report", self.report or "none"),
            ("measure", f"renshu evaluate {run_dir}"),
            ("repeat", f"renshu train --config {run_dir}/config.yaml"),
            ("go on", f"{resume_command(self.run_dir)} --trainer.max_epochs N"),
        ]
        return [f"{label:<8} {text}" for label, text in rows]


class _Record(Callback):
    """Writes the configuration before the first batch, when all checks are over.

    A continuation that is refused leaves the run's own file as it was.
    """

    def __init__(self, request: Request, session: Session) -> None:
        self.request = request
        self.session = session

    def setup(self, trainer: Any, module: Any, stage: str) -> None:
        if trainer.run_dir is not None and stage == "fit":
            self.session.run_dir = _relative(trainer.run_dir)

    def on_sanity_check_start(self, trainer: Any, module: Any) -> None:
        if (run_dir := self.session.run_dir) and trainer.is_global_zero:
            write_atomically(run_dir / "config.yaml", [yaml_file.dumps(self.request.config)])

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.on_sanity_check_start(trainer, module)  # there is none without validation
        if run_dir := self.session.run_dir:
            self.session.resume = resume_command(run_dir)


def train(request: Request, session: Session) -> Result:
    """Train, choose on the validation part, measure the test part, write the report.

    Raises KeyboardInterrupt when Ctrl-C stopped the fit, after its state was saved.
    """
    old = _old_run(request)
    seed = request.trainer["seed"]
    if seed is None and old is not None:
        seed = environment.read_environment(old).get("seed")
    callbacks = [*request.task.load("callbacks")(request.options), _Record(request, session)]
    chosen = {"seed": seed, "callbacks": callbacks}
    if request.trainer["precision"] == "auto":
        chosen["precision"] = request.task.load("precision")(request.trainer["accelerator"])
    # Before the data, which may take minutes to read: it refuses what cannot work.
    trainer = Trainer(**request.trainer | chosen)
    seed_everything(trainer.seed, verbose=False)
    # The name belongs to this run, the seed to what it computes.
    request.config["trainer"] |= {"seed": trainer.seed, "run": None}
    data = load_data(request, old)
    module = request.task.load("module")(request.options, data)
    trainer.fit(module, datamodule=data, ckpt_path=request.ckpt_path)
    if trainer.interrupted:
        raise KeyboardInterrupt
    if trainer.run_dir is None:
        return Result(None)
    run_dir = _relative(trainer.run_dir)
    _use_best(trainer, module)
    if trainer.is_global_zero:
        request.task.load("finish")(module, data, run_dir)
    # The other processes of a run wait here for the first one.
    trainer.save_checkpoint(run_dir / trained.MODEL, weights_only=True)
    if not trainer.is_global_zero:
        raise SystemExit(0)
    return Result(run_dir, write_report(run_dir), trained.figures(run_dir, "test"))


def write_report(run_dir: Path) -> Path | None:
    """report.html; without plotly a message, since the run itself is complete."""
    from renshu.report import write_report as write

    try:
        return write(run_dir)
    except ConfigError as error:
        say(f"no report: {error}")
        return None


def resume_command(run_dir: Path) -> str:
    """The command that continues a run; can be pasted into a shell."""
    config = shlex.quote(str(run_dir / "config.yaml"))
    return f"renshu train --config {config} --trainer.run {run_dir.name} --ckpt_path last"


def _old_run(request: Request) -> Path | None:
    """The folder of the run that is to be continued; None for a new one."""
    word = request.ckpt_path
    if word is None:
        return None
    root, name = runs_root(request.trainer["default_root_dir"]), request.trainer["run"]
    folder = root / name if word in ("last", "best") and name else Path(word)
    folder = run_of(folder) or folder
    return folder if (folder / environment.FILE).is_file() else None


def load_data(request: Request, run_dir: Path | None) -> Any:
    """The task's data; raises DataError if they are not a run's own, unless that is allowed."""
    data = request.task.load("data")(request.options)
    if run_dir is not None:
        stored = environment.read_environment(run_dir).get("fingerprint")
        environment.check_fingerprint(stored, data.fingerprint(), allow=request.allow_changed_data)
        data.follow(run_dir)
    return data


def _use_best(trainer: Trainer, module: Any) -> None:
    """Put the best weights into the module, if a monitor chose any; else it keeps the last."""
    from renshu.callbacks.model_checkpoint import ModelCheckpoint
    from renshu.checkpoints import read_weights
    from renshu.weights import load_weights

    for callback in trainer.callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            path = str(callback.best_model_path)
            load_weights(module, read_weights(path), where=path)
            return


def _relative(path: Path) -> Path:
    """Shorter to read and to type where the run is below the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
