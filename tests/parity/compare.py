"""The same module classes under pytorch_lightning and under renshu, and what must be equal.

A case is a function `build(pl)`: it gets one of the two packages, makes everything from that
package's classes and returns a Job. Nothing is drawn after the weights are made.
"""

from __future__ import annotations

import inspect
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from difflib import unified_diff
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import renshu
import renshu.callbacks
import renshu.loggers
import small_models

lightning = pytest.importorskip("pytorch_lightning", reason="needs renshu[parity]")

TOLERANCE = 1e-6
"""Absolute and relative, for weights and logged values."""

for _name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass
class Job:
    """What a case trains: made anew for each package.

    Attributes:
        module: the module.
        train, val: loaders; a data module goes into `train`.
        options: arguments of Trainer beside those of `trainer`.
        run: what is done with (trainer, job); what it returns is compared as well.
        differs: what of the Outcome differs deliberately; test_differences.py says how.
    """

    module: Any
    train: Any = None
    val: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    run: Callable[[Any, Job], Any] = lambda trainer, job: trainer.fit(
        job.module, job.train, job.val
    )
    differs: tuple[str, ...] = ()


Build = Callable[[Any], Job]


def cases(found: Mapping[str, Any] | list[Any], defects: Mapping[str, str] | None = None) -> Any:
    """Cases by name, or functions, as pytest's parameters; one with a known defect has to fail."""
    by_name = found if isinstance(found, Mapping) else {case.__name__: case for case in found}
    reasons = defects or {}
    assert reasons.keys() <= by_name.keys()
    return [
        pytest.param(case, id=name, marks=defect(reasons[name]) if name in reasons else ())
        for name, case in by_name.items()
    ]


def defect(reason: str) -> pytest.MarkDecorator:
    """What renshu does wrong and Lightning does right; the test fails as soon as it is mended."""
    return pytest.mark.xfail(strict=True, reason=reason)


@dataclass
class Outcome:
    """What is compared."""

    weights: dict[str, Tensor]
    logged: dict[str, list[tuple[int, float]]]
    metrics: dict[str, float]
    steps: int
    result: Any
    calls: list[str]
    differs: tuple[str, ...]


def assert_same(build: Build) -> None:
    """Train a case under both packages; all but the calls once more without anybody listening.

    renshu takes a shorter way through a step when nobody overrides a hook: it must not differ.
    """
    theirs = train(lightning, build, listen=True)
    ours = train(renshu, build, listen=True)
    bare = train(renshu, build, listen=False)
    compared = {"weights", "logged", "metrics", "steps", "result"}
    for found in (ours, bare):
        for what in compared.difference(theirs.differs):
            assert_close(getattr(found, what), getattr(theirs, what), what)
    if "calls" not in theirs.differs:
        assert_same_calls(ours.calls, theirs.calls)


def train(pl: Any, build: Build, listen: bool) -> Outcome:
    """Run a case in an empty folder under one package; with `listen`, hooks are recorded."""
    with quiet(pl), TemporaryDirectory() as home, chdir(home):
        job = build(pl)
        calls, logged = list[str](), dict[str, list[tuple[int, float]]]()
        own = list(job.options.pop("callbacks", []))
        if listen:
            own.append(listening_callback(pl, calls))
            listening_module(job.module, calls)
        own.append(reader := metrics_reader(pl))
        options = {"logger": recording_logger(pl, logged), "default_root_dir": home, **job.options}
        runner = trainer(pl, callbacks=own, **options)
        result = job.run(runner, job)
        metrics = reader.found or runner.callback_metrics
        return Outcome(
            weights={name: w.detach().clone() for name, w in job.module.state_dict().items()},
            logged=logged,
            metrics={name: float(value) for name, value in metrics.items()},
            steps=runner.global_step,
            result=result,
            calls=calls,
            differs=job.differs,
        )


@contextmanager
def quiet(pl: Any) -> Iterator[None]:
    """Lightning's warnings are its own affair; renshu's are errors here as everywhere."""
    with warnings.catch_warnings():
        if pl is lightning:
            warnings.simplefilter("ignore")
        yield


def trainer(pl: Any, **options: Any) -> Any:
    """A quiet trainer of a package that logs every step and trains two epochs."""
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "log_every_n_steps": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    if pl is renshu:
        defaults["seed"] = 0
    return pl.Trainer(**{**defaults, **options})


def assert_same_calls(found: list[str], expected: list[str]) -> None:
    """Equal order of hook calls; a failure shows where they part."""
    parting = unified_diff(expected, found, "Lightning", "renshu", n=2, lineterm="")
    assert found == expected, "\n".join(parting)


def assert_close(found: Any, expected: Any, where: str) -> None:
    """Equal structures, numbers and tensors equal to TOLERANCE; a failure names the place."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_close(found[key], expected[key], f"{where}[{key!r}]")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), f"{where}: {found} instead of {expected}"
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, f"{where}[{number}]")
    elif isinstance(expected, Tensor):
        torch.testing.assert_close(
            found, expected, rtol=TOLERANCE, atol=TOLERANCE, msg=lambda text: f"{where}: {text}"
        )
    elif isinstance(expected, float):
        close = math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        assert close or (math.isnan(found) and math.isnan(expected)), (
            f"{where}: {found} instead of {expected}"
        )
    else:
        assert found == expected, f"{where}: {found!r} instead of {expected!r}"


# --- who listens

_HOOKS = [name for name in vars(lightning.Callback) if name.startswith("on_")]
CALLBACK_HOOKS = ["setup", *_HOOKS, "teardown"]
MODULE_HOOKS = [name for name in CALLBACK_HOOKS if hasattr(lightning.LightningModule, name)]


def listening_callback(pl: Any, calls: list[str]) -> Any:
    """A callback that overrides every hook of Lightning's and notes each call."""

    def noting(name: str) -> Callable[..., None]:
        return lambda *_, **__: calls.append(f"callback.{name}")

    return type("Listener", (pl.Callback,), {name: noting(name) for name in CALLBACK_HOOKS})()


def listening_module(module: Any, calls: list[str], names: list[str] = MODULE_HOOKS) -> None:
    """Have a module note the calls of its hooks before it does what they do."""
    kind = type(module)

    def noting(name: str) -> Callable[..., Any]:
        inherited = getattr(kind, name)

        def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(f"module.{name}")
            return inherited(self, *args, **kwargs)

        # Both packages look at how many arguments a step takes.
        hook.__signature__ = inspect.signature(inherited)  # type: ignore[attr-defined]
        return hook

    # The class keeps its name: files and hyper-parameters speak of it.
    module.__class__ = type(kind.__name__, (kind,), {name: noting(name) for name in names})


def metrics_reader(pl: Any) -> Any:
    """A callback that keeps what `callback_metrics` held at the end of training."""

    class Reader(pl.Callback):
        found: dict[str, Any] | None = None

        def on_train_end(self, trainer: Any, module: Any) -> None:
            self.found = dict(trainer.callback_metrics)

    return Reader()


def recording_logger(pl: Any, logged: dict[str, list[tuple[int, float]]]) -> Any:
    """A logger that keeps what it gets in memory: name → (step, value) in order."""

    class Recorder(pl.loggers.Logger):
        name, version = "recorder", 0

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

        def log_metrics(self, metrics: Any, step: Any) -> None:
            for name, value in metrics.items():
                if name not in ("epoch", "samples"):
                    logged.setdefault(name, []).append((step, float(value)))

    return Recorder()


# --- what cases are made of

digits = cache(small_models.digits)


def loader(n: int = 48, batch_size: int = 8, **kwargs: Any) -> DataLoader:
    """Digits in a fixed order: six batches of eight unless told otherwise."""
    return DataLoader(
        TensorDataset(*(part[:n] for part in digits())), batch_size=batch_size, **kwargs
    )


def classifier(pl: Any) -> Any:
    """A class on the package's LightningModule that cases derive from."""

    class Classifier(pl.LightningModule):
        def __init__(self, lr: float = 0.1):
            super().__init__()
            torch.manual_seed(0)
            self.lr = lr
            self.net = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))

        def forward(self, images: Tensor) -> Tensor:
            return self.net(images)

        def loss(self, batch: Any) -> Tensor:
            return cross_entropy(self(batch[0]), batch[1])

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            self.log("train_loss", loss)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("val_loss", self.loss(batch))

        def test_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("test_loss", self.loss(batch))

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self(batch[0])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    return Classifier


def job(kind: type, differs: tuple[str, ...] = (), **options: Any) -> Job:
    """The class trained on the digits with a validation of three batches."""
    return Job(kind(), loader(), loader(24), options, differs=differs)
