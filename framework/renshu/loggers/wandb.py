"""The run's values for Weights & Biases, online or offline."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from renshu.errors import ConfigError, RunError
from renshu.loggers.files import write_atomically
from renshu.loggers.tracker import Tracker, require
from renshu.loggers.wandb_file import WandbFile

if TYPE_CHECKING:
    import wandb

STEP = "trainer/global_step"
_PATIENCE = 60.0


class WandbLogger(Tracker):
    """Sends values to Weights & Biases, with `trainer/global_step` as the x-axis of every metric.

    Names and meaning of the arguments are Lightning's. The run's folder holds the id, so a resumed
    run goes on in the same W&B run; offline in a second directory beside the first, and together
    they hold each step once. Before a checkpoint becomes valid all values are in the run's `.wandb`
    file. After a fit the W&B run stays open, for test results; `wandb.finish()`, the next fit or
    the end of the process close it.

    Args:
        name: the run's name; W&B invents one otherwise.
        save_dir: folder for W&B's files, also called `dir`; None is the run's folder.
        version: id of the run, also called `id`.
        offline: keep all on this machine, for `wandb sync`; WANDB_MODE=offline does the same.
        project: None is what WANDB_PROJECT says, else "renshu".
        log_model: see Tracker; it cannot be had offline.
        experiment: a run that is already under way, to log to.
        checkpoint_name: of the artifact; None is "model-<id>".
        kwargs: further arguments of `wandb.init`.

    Raises:
        ConfigError: the package wandb is missing, or W&B refuses the run.
    """

    def __init__(
        self,
        name: str | None = None,
        save_dir: str | Path | None = None,
        version: str | None = None,
        offline: bool = False,
        dir: str | Path | None = None,
        id: str | None = None,
        project: str | None = None,
        log_model: Literal["all"] | bool = False,
        experiment: wandb.Run | None = None,
        prefix: str = "",
        checkpoint_name: str | None = None,
        add_file_policy: Literal["mutable", "immutable"] = "mutable",
        **kwargs: Any,
    ) -> None:
        require("wandb")
        super().__init__(prefix, log_model)
        if offline and log_model:
            what = "log_model needs the server, which offline=True keeps out"
            raise ConfigError(what, where="WandbLogger", allowed="one of them")
        self.name = project or os.environ.get("WANDB_PROJECT", "renshu")
        self.save_dir, self.version = save_dir or dir, version or id
        self.checkpoint_name = checkpoint_name
        self._policy: Literal["mutable", "immutable"] = add_file_policy
        mode = {"mode": "offline"} if offline else {}
        # By W&B's own default a second fit of the process would go on in the first one's run.
        fixed = {"resume": "allow", "reinit": "finish_previous"}
        self._init = {"project": self.name, "name": name, **fixed, **mode, **kwargs}
        self._given, self._run = experiment, experiment
        self._file: WandbFile | None = None
        self._sent: dict[str, int] = {}
        self._held: dict[str, int] = {}

    @property
    def experiment(self) -> wandb.Run:
        """W&B's own run, for all that has no method here."""
        if self._run is None:
            raise RunError("the W&B logger is not open", mend="use it during or after a fit")
        return self._run

    def open(self, run_dir: Path, *, resume: bool) -> None:
        import wandb
        from wandb.errors import CommError, UsageError

        if self._run is not self._given:
            self.experiment.finish()
        self._marks, self._ended, folder = {}, False, Path(self.save_dir or run_dir)
        file = self._id_file(run_dir, self.name)
        run_id = self.version or self._remembered(file, resume) or secrets.token_hex(4)
        before = sorted(folder.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb"))
        # W&B buffers what it writes; its own 15 s would be the least time that a checkpoint takes.
        settings = wandb.Settings(x_transaction_log_flush_interval=0.1)
        fixed = {"dir": str(folder), "id": run_id}
        try:
            self._run = self._given or wandb.init(**{"settings": settings, **self._init, **fixed})
        except (UsageError, CommError) as error:
            mend = "WandbLogger(offline=True), WANDB_MODE=offline, or `wandb login`"
            raise ConfigError(f"W&B: {error}", where="WandbLogger", mend=mend) from error
        write_atomically(file, [self._run.id])
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP, step_sync=True)
        self._file = WandbFile(Path(self._run.settings.sync_file))
        self._sent, self._held = {}, {}
        self._go_on([row for path in before if resume for row in WandbFile(path).rows()])

    def _go_on(self, rows: list[dict[str, Any]]) -> None:
        """Find what W&B has of the run; send what a kill left in this machine's files only."""
        import wandb

        known: Any = rows
        if rows and not self.experiment.offline:
            known = wandb.Api().run(self.experiment.path).scan_history()
        for row in known:
            for tag in row.keys() - {STEP}:
                self._marks[tag] = max(self._marks.get(tag, -1), int(row.get(STEP, -1)))
        for row in rows:
            step = int(row.pop(STEP, -1))
            numbers = {tag: v for tag, v in row.items() if isinstance(v, int | float)}
            fresh = {tag: v for tag, v in numbers.items() if step > self._marks.get(tag, -1)}
            if fresh:
                self._send(fresh, step)
                self._marks |= dict.fromkeys(fresh, step)

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        self.experiment.config.update(dict(params), allow_val_change=True)

    def _send(self, metrics: dict[str, Any], step: int) -> None:
        self.experiment.log({**metrics, STEP: step})
        self._sent |= dict.fromkeys(metrics, step)

    def _show(self, key: str, images: list[Any], step: int, details: dict[str, Any]) -> None:
        import wandb

        self._send({key: _each(wandb.Image, images, details)}, step)

    def log_audio(
        self, key: str, audios: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Sounds as arrays or paths; keyword arguments are lists, one entry a sound."""
        import wandb

        self.log_metrics({key: _each(wandb.Audio, audios, kwargs)}, step)  # pyright: ignore

    def log_video(
        self, key: str, videos: list[Any], step: int | None = None, **kwargs: Any
    ) -> None:
        """Videos as arrays or paths; keyword arguments are lists, one entry a video."""
        import wandb

        self.log_metrics({key: _each(wandb.Video, videos, kwargs)}, step)  # pyright: ignore

    def log_table(
        self,
        key: str,
        columns: Any = None,
        data: Any = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """A table from columns and rows or from a data frame; `log_text` is another name."""
        import wandb

        table: Any = wandb.Table(columns=columns, data=data, dataframe=dataframe)
        self.log_metrics({key: table}, step)

    log_text = log_table

    def watch(
        self, model: Any, log: Any = "gradients", log_freq: int = 100, log_graph: bool = True
    ) -> None:
        """Have W&B record histograms of gradients or parameters, and the graph."""
        self.experiment.watch(model, log=log, log_freq=log_freq, log_graph=log_graph)

    def log_artifact(self, path: str | Path, name: str | None = None, type: str = "file") -> None:
        import wandb

        artifact = wandb.Artifact(name or Path(path).name.replace("=", "-"), type)
        add = artifact.add_dir if Path(path).is_dir() else artifact.add_file
        add(str(path), policy=self._policy)
        self.experiment.log_artifact(artifact)

    def log_checkpoint(self, path: str) -> None:
        self.log_artifact(path, self.checkpoint_name or f"model-{self.experiment.id}", "model")

    def save(self) -> None:
        if self._file is None:
            return
        began, sent = time.monotonic(), dict(self._sent)
        while True:
            for row in self._file.rows():
                self._held |= dict.fromkeys(row, int(row.get(STEP, -1)))
            if all(step <= self._held.get(tag, -1) for tag, step in sent.items()):
                break
            if time.monotonic() - began > _PATIENCE:
                what = f"W&B has not written what it was sent {_PATIENCE:.0f} s ago"
                raise RunError(what, where=self._file.path)
            time.sleep(0.02)
        self._file.sync()

    def finalize(self, status: str) -> None:
        self.save()
        self._ended = True


def _each(kind: Any, items: list[Any], details: dict[str, Any]) -> list[Any]:
    """W&B's objects of one kind; each detail is a list with one entry an item."""
    keyed = [dict(zip(details, row, strict=True)) for row in zip(*details.values(), strict=True)]
    return [
        kind(item, **more) for item, more in zip(items, keyed or [{}] * len(items), strict=True)
    ]
