"""A small task, found through an entry point like every task, and the program in a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TOY = '''
"""A task without torch: the command line needs nothing else to answer."""

from dataclasses import dataclass, field
from typing import Any, Literal

from renshu.errors import ConfigError
from renshu.task import Task


@dataclass(kw_only=True)
class Data:
    """Where the numbers come from.

    Attributes:
        path: file with the numbers,
            one a line.
        classes: names of the classes.
        weights: weight of each class.
        size: height and width.
    """

    path: str | None = None
    classes: list[str] | None = None
    weights: dict[str, float] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    hook: Any = None


@dataclass(kw_only=True)
class Model:
    """Which network.

    Attributes:
        name: its name.
        width: units a layer.
    """

    name: Literal["small", "large"] = "small"
    width: int = 8

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ConfigError("width must be above 0", where="model.width")


@dataclass(kw_only=True)
class Training:
    """How it learns.

    Attributes:
        lr: learning rate.
        epochs: passes over the data.
    """

    lr: float = 0.1
    epochs: int = 1


@dataclass(kw_only=True)
class Options:
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)


task = Task(
    name="toy",
    summary="Nothing that is worth learning.",
    extra="vision",
    options=Options,
    data="renshu_toy_task_parts:data",
    module="renshu_toy_task_parts:module",
    module_class="renshu_toy_task_parts:Line",
    callbacks="renshu_toy_task_parts:callbacks",
    precision="renshu_toy_task_parts:precision",
    finish="renshu_toy_task_parts:finish",
    evaluate="renshu_toy_task_parts:evaluate",
    predict="renshu_toy_task_parts:predict",
    report="renshu_toy_task_parts:report",
    presets={
        "default": {"trainer.max_epochs": 5},
        "demo": {"training": {"lr": 0.5, "epochs": 2}, "trainer.max_epochs": 2},
    },
)
'''

PARTS = '''
"""What the task needs torch for: a line through points that lie on one."""

import json
import os
import signal
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from renshu import DataModule, Module


class Points(DataModule):
    def __init__(self, options):
        super().__init__()
        self.options = options

    def loader(self, shuffle=False):
        x = torch.linspace(-1, 1, 32)[:, None]
        return DataLoader(TensorDataset(x, 3 * x), batch_size=4, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader(shuffle=True)

    def val_dataloader(self):
        return self.loader()

    def fingerprint(self):
        return {"train": {"files": 1, "sha256": self.options.data.path or "embedded"}}


class Line(Module):
    def __init__(self, width=8, lr=0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)
        self.extra = torch.nn.Parameter(torch.zeros(width))
        self.register_buffer("chosen", torch.zeros(()))

    def training_step(self, batch, batch_idx):
        x, y = batch
        kill = os.environ.get("TOY_SIGNAL")
        if kill and self.trainer.global_step == 10:
            os.kill(os.getpid(), getattr(signal, kill))
        if os.environ.get("TOY_BUG"):
            raise ZeroDivisionError("a bug of the user")
        if os.environ.get("TOY_NAN"):
            x = x * float("nan")
        loss = ((self.layer(x) - y) ** 2).mean()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", ((self.layer(x) - y) ** 2).mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


def data(options):
    print("reading the numbers")
    return Points(options)


def module(options, data) -> "Line":
    return Line(width=options.model.width, lr=options.training.lr)


def callbacks(options):
    return []


def precision(accelerator):
    return "bf16-mixed"


def finish(module, data, run_dir):
    module.chosen.fill_(module.layer.weight.item())
    evaluate(module, data, "test", run_dir)


def evaluate(module, data, split, run_dir):
    folder = Path(run_dir) / "evaluation" / split
    folder.mkdir(parents=True, exist_ok=True)
    slope = {"value": module.layer.weight.item(), "low": 2.0, "high": 4.0}
    figures = {"slope": slope, "chosen": module.chosen.item(), "names": ["a"]}
    (folder / "metrics.json").write_text(json.dumps(figures))
    return figures


def predict(module, files, options):
    for file in files:
        for line in Path(file).read_text().splitlines():
            yield {"id": line, "y": module.layer(torch.tensor([[float(len(line))]])).item()}


def report(run_dir):
    return []
'''


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy task and the metadata that an installed package has."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "renshu_toy_task.py").write_text(TOY)
    (folder / "renshu_toy_task_parts.py").write_text(PARTS)
    info = folder / "renshu_toy_task-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: renshu-toy-task\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[renshu.tasks]\ntoy = renshu_toy_task:task\n")
    return folder


@pytest.fixture
def toy(toy_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy task is installed for this test and for the processes that it starts."""
    monkeypatch.syspath_prepend(str(toy_path))
    monkeypatch.setenv("PYTHONPATH", str(toy_path))
    return toy_path


Program = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def renshu() -> Program:
    """Run `renshu ARGUMENTS…` in a process of its own."""

    def call(*arguments: str, prelude: str = "") -> subprocess.CompletedProcess[str]:
        code = f"import sys; {prelude}\nfrom renshu.cli.main import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120
        )

    return call
