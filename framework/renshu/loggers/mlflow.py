"""The run's values for an MLflow tracking server, or a database on this machine."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from renshu.errors import ConfigError, RunError
from renshu.loggers.files import write_atomically
from renshu.loggers.tracker import Tracker, require
from renshu.messages import say

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH, _FLUSH_SECONDS = 1000, 5.0  # MLflow takes no more values at once
_STATUS = {"success": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_FORBIDDEN = re.compile(r"[^\w.\- :/]")


class MLFlowLogger(Tracker):
    """Sends values to MLflow. Names and meaning of the arguments are Lightning's.

    Values go in batches: every 5 seconds, and before a checkpoint becomes valid. After a resume the
    server is asked what it has. Pictures are artifacts `images/<name>/<step>-<number>.png`.

    Args:
        experiment_name: made if there is none of this name.
        run_name: None is the name of the run's folder.
        tracking_uri: a server, or `sqlite:///file`; None is what MLFLOW_TRACKING_URI says, else
            the database `mlflow.db` in `save_dir`.
        tags: of the run.
        save_dir: folder of the database and its artifacts; None is the folder of all runs.
        log_model: see Tracker.
        artifact_location: of a new experiment; a server has its own.
        run_id: a run of MLflow to go on with.
        synchronous: send every record at once; costs a request each.

    Raises:
        ConfigError: the package mlflow is missing, or no server answers.
    """

    def __init__(
        self,
        experiment_name: str = "renshu",
        run_name: str | None = None,
        tracking_uri: str | None = None,
        tags: dict[str, Any] | None = None,
        save_dir: str | Path | None = None,
        log_model: Literal["all"] | bool = False,
        prefix: str = "",
        artifact_location: str | None = None,
        run_id: str | None = None,
        synchronous: bool | None = None,
    ) -> None:
        require("mlflow")
        super().__init__(prefix, log_model)
        self.name, self._run_name, self.tags = experiment_name, run_name, tags
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.save_dir, self._artifacts = save_dir, artifact_location
        self.run_id, self._run_id = None, run_id
        self._synchronous, self._client = synchronous, None
        self._lock, self._kept, self._flushed = threading.Lock(), deque[Any](), time.monotonic()
        self._names = dict[str, str]()

    @property
    def experiment(self) -> MlflowClient:
        """MLflow's client, for all that has no method here; `run_id` is the run's."""
        if self._client is None:
            raise RunError("the MLflow logger is not open", mend="use it during or after a fit")
        return self._client

    def open(self, run_dir: Path, *, resume: bool) -> None:
        from mlflow import MlflowClient

        folder, place = Path(self.save_dir or run_dir.parent).resolve(), self._artifacts
        uri = self.tracking_uri or f"sqlite:///{folder / 'mlflow.db'}"
        if uri.startswith("http"):
            _knock(uri)
        elif place is None:
            place = (folder / "mlartifacts" / self.name).as_uri()
        self._client = client = MlflowClient(uri)
        self._kept.clear()
        file = self._id_file(run_dir, f"{self.tracking_uri} {self.name}")
        self.run_id, self._ended = self._run_id or self._remembered(file, resume), False
        if self.run_id is None:
            found = client.get_experiment_by_name(self.name)
            number = (
                client.create_experiment(self.name, place) if not found else found.experiment_id
            )
            name = self._run_name or run_dir.name
            self.run_id = client.create_run(number, tags=self.tags, run_name=name).info.run_id
            write_atomically(file, [self.run_id])
        else:
            client.update_run(self.run_id, "RUNNING")
        data = client.get_run(self.run_id).data
        self._params = set(data.params)
        self._marks = {metric.key: metric.step for metric in data.to_proto().metrics}

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        flat = {self._allowed(name): value for name, value in _flat(params)}
        new = [Param(name, str(value)) for name, value in flat.items() if name not in self._params]
        self._params.update(flat)
        for start in range(0, len(new), 100):  # MLflow takes no more parameters at once
            self.experiment.log_batch(self.run_id or "", params=new[start : start + 100])

    def _send(self, metrics: dict[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        for tag, value in metrics.items():
            self._kept.append(Metric(tag, float(value), now, step))
        late = time.monotonic() - self._flushed > _FLUSH_SECONDS
        if self._synchronous or late or len(self._kept) >= _BATCH:
            self.save()

    def _show(self, key: str, images: list[Any], step: int, details: dict[str, Any]) -> None:
        for number, image in enumerate(images):
            file = f"images/{key}/{step:06d}-{number}.png"
            self.experiment.log_image(self.run_id or "", image, file)

    def log_artifact(self, path: str | Path, name: str | None = None) -> None:
        client, run, name = self.experiment, self.run_id or "", name or Path(path).name
        if Path(path).is_dir():
            client.log_artifacts(run, str(path), name)
        else:
            client.log_artifact(run, str(path), name if name != Path(path).name else None)

    def register_model(self, path: str | Path, name: str) -> str:
        """Put a folder, such as a checkpoint's, into the model registry; the new version's number.

        The folder becomes an artifact of the run, and a version of the registered model `name`,
        which is made if there is none.
        """
        from mlflow.exceptions import MlflowException

        client = self.experiment
        self.log_artifact(path)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        source = f"runs:/{self.run_id}/{Path(path).name}"
        return str(client.create_model_version(name, source, self.run_id).version)

    def save(self) -> None:
        with self._lock:
            while self._kept:
                batch = [self._kept[i] for i in range(min(_BATCH, len(self._kept)))]
                self.experiment.log_batch(self.run_id or "", metrics=batch)
                for _ in batch:
                    self._kept.popleft()
            self._flushed = time.monotonic()

    def finalize(self, status: str) -> None:
        if self._client is not None:
            self.save()
            self._client.set_terminated(self.run_id or "", _STATUS.get(status, "FAILED"))
        self._ended = True

    def _named(self, tag: str) -> str:
        return self._allowed(super()._named(tag))

    def _allowed(self, name: str) -> str:
        """The name with "_" for what MLflow does not take in names; said once a name."""
        if name not in self._names:
            self._names[name] = _FORBIDDEN.sub("_", name)
            if self._names[name] != name:
                say(f"{name!r} is {self._names[name]!r} in MLflow, which does not take such names")
        return self._names[name]


def _flat(params: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as one, with names like "optimizer/lr"."""
    found: list[tuple[str, Any]] = []
    for name, value in params.items():
        nested = isinstance(value, Mapping)
        found += _flat(value, f"{prefix}{name}/") if nested else [(f"{prefix}{name}", value)]
    return found


def _knock(uri: str) -> None:
    """Raise ConfigError if no server answers; MLflow itself would try for minutes."""
    try:
        urllib.request.urlopen(uri, timeout=10).close()
    except urllib.error.HTTPError:
        pass  # an answer, if only to ask for a password
    except OSError as error:
        what, mend = f"no MLflow server answers: {error}", "mlflow server --port 5000"
        raise ConfigError(what, where=uri, mend=mend) from None
