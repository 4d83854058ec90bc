"""The detector as a Module: networks learn by steps, others in one; both are saved alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError
from renshu.messages import say
from renshu_tasks.anomaly.detectors import NEURAL, make
from renshu_tasks.anomaly.learner import Batch, Learner
from renshu_tasks.anomaly.options import AnomalyOptions, ModelOptions, TrainingOptions
from renshu_tasks.anomaly.thresholds import Decision

if TYPE_CHECKING:
    from renshu_tasks.anomaly.data import SeriesData
    from renshu_tasks.anomaly.detector import Detector
    from renshu_tasks.anomaly.detectors.neural import NeuralDetector


class AnomalyDetector(Learner):
    """A detector with its decision: scores, threshold, p-values, alarms.

    A network's batches are windows; another detector's only batch is the whole training part,
    float64 [N, C], which it is fitted on in one step.

    Args:
        name: of the detector.
        parameters: of the detector.
        channels: names of the C columns.
        period: seconds between points.
        time_column: name of the time stamps where files are predicted.
        sampling: rows, grid, or mean where rows are averaged over periods.
        max_gap: longest run of missing points that is filled.
        training: how the threshold is chosen; a dict is what a checkpoint holds.
    """

    def __init__(
        self,
        name: str,
        parameters: Mapping[str, Any],
        channels: list[str],
        *,
        period: float = 1.0,
        time_column: str | None = None,
        sampling: str = "rows",
        max_gap: int = 10,
        training: TrainingOptions | Mapping[str, Any] | None = None,
    ) -> None:
        detector = make(name, parameters)
        network = None
        if name in NEURAL:
            network = detector.build(len(channels))  # type: ignore[attr-defined]
        super().__init__(network, getattr(detector, "learning_rate", 0.0))
        self.detector: Detector = detector
        self.decision: Decision | None = None
        if not isinstance(training, TrainingOptions):
            training = TrainingOptions(**training or {})
        self.training_options = training
        self.save_hyperparameters(
            {
                "name": name,
                "parameters": detector.parameters(),
                "channels": list(channels),
                "period": period,
                "time_column": time_column,
                "sampling": sampling,
                "max_gap": max_gap,
                "training": dataclasses.asdict(training),
            }
        )

    @property
    def neural(self) -> bool:
        """Whether a network learns by steps."""
        return self.network is not None

    # --- steps

    def training_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor | None:
        """→ 0-dim loss of a network; None for a detector that is fitted in one step."""
        if self.neural:
            return super().training_step(batch, batch_idx)  # type: ignore[arg-type]
        assert isinstance(batch, Tensor)
        self.detector.fit(batch.cpu().numpy())
        self.trainer.should_stop = True  # it has seen everything
        return None

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers() if self.neural else None

    # --- state: what a state_dict of tensors cannot hold

    def get_extra_state(self) -> dict[str, Any]:
        """The detector's arrays without the network's weights, and the decision."""
        from renshu_tasks.anomaly.detectors.neural import WEIGHTS

        fitted = self.detector.channels and (not self.neural or hasattr(self.detector, "scale"))
        arrays = self.detector.state().arrays if fitted else {}
        decision = None if self.decision is None else self.decision.state()
        kept = {name: a for name, a in arrays.items() if not name.startswith(WEIGHTS)}
        return {"arrays": kept, "decision": decision}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        if state["arrays"]:
            self.detector.load_arrays(state["arrays"])
        if state["decision"] is not None:
            self.decision = Decision(**state["decision"])


def build(options: AnomalyOptions, data: SeriesData) -> AnomalyDetector:
    """The detector for the data at hand; see `renshu.task.Task`."""
    from renshu_tasks.anomaly.data import require_one_channel

    parameters = _parameters(options, data)
    if threads := options.training.threads or _threads(options.model, data):
        torch.set_num_threads(threads)
    module = AnomalyDetector(
        options.model.name,
        parameters,
        list(data.series.channels),
        period=data.series.period,
        time_column=options.data.time_column,
        sampling=data.series.sampling,
        max_gap=options.data.max_gap,
        training=options.training,
    )
    detector = module.detector
    if not detector.multivariate:
        require_one_channel(data, detector.name)
    if module.neural:
        network: NeuralDetector = detector  # type: ignore[assignment]
        network.fit_scaling(data.train)
        data.detector = network
        if options.data.batch_size is None:
            say(data.defaults.describe(), once=True)
    else:
        data.detector = None
    return module


def _threads(model: ModelOptions, data: SeriesData) -> int | None:
    return data.defaults.threads if model.name in NEURAL else None


def _parameters(options: AnomalyOptions, data: SeriesData) -> dict[str, Any]:
    """What was given, and the period of the training part as the window."""
    from renshu_tasks.anomaly.detectors import detector_class
    from renshu_tasks.anomaly.metrics.window import metric_window

    name, given = options.model.name, options.model.parameters()
    kind = detector_class(name)
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    for key in given:
        if key not in known:
            able = ", ".join(sorted(known - {"seed"})) or "none"
            raise ConfigError(
                f"{name} has no {key}",
                where=f"model.{key}",
                allowed=f"parameters of {name}: {able}",
            )
    if "window" in known and "window" not in given and name not in ("usad", "spectral_residual"):
        found = metric_window(data.train)
        given["window"] = found.points
        say(f"window: {found.points} points ({found.rule} of the training part)")
    if "learning_rate" in known and options.training.learning_rate is not None:
        given["learning_rate"] = options.training.learning_rate
    return given


def callbacks(options: AnomalyOptions) -> list[Callback]:
    """For networks: stop when the held-out part no longer improves, and keep its best epoch."""
    from renshu.callbacks.early_stopping import EarlyStopping
    from renshu.callbacks.model_checkpoint import ModelCheckpoint

    if options.model.name not in NEURAL:
        return []
    patience = options.training.patience
    return [
        EarlyStopping("val_loss", min_delta=1e-4, patience=patience),
        ModelCheckpoint(monitor="val_loss", save_last=True),
    ]


def finish(module: AnomalyDetector, data: SeriesData, run_dir: Path) -> None:
    """After training: threshold and p-values on the held-out part, then the test part, once."""
    from renshu_tasks.anomaly import evaluation

    evaluation.calibrate(module, data)
    start, stop = data.parts["test"]
    evaluation.evaluate(module, data, "test" if stop > start else "val", run_dir)


def evaluate(
    module: AnomalyDetector, data: SeriesData, split: str, run_dir: Path
) -> dict[str, Any]:
    """Measure a part and write what was found; used by `renshu evaluate`."""
    from renshu_tasks.anomaly import evaluation

    return evaluation.evaluate(module, data, split, run_dir)
