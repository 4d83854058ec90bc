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
    callbacks="renshu_toy_task_parts:callbacks",
    finish="renshu_toy_task_parts:finish",
    predict="renshu_toy_task_parts:predict",
    report="renshu_toy_task_parts:report",
    presets={"demo": {"training": {"lr": 0.5, "epochs": 2}, "trainer.max_epochs": 2}},
)
'''


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the toy task and the metadata that an installed package has."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "renshu_toy_task.py").write_text(TOY)
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
