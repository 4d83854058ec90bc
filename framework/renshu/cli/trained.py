"""A run folder that has been trained: its options, its data, its model, its figures."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.cli.parser import Request, parse_train
from renshu.errors import ConfigError, near
from renshu.task import Task

if TYPE_CHECKING:
    import torch

    from renshu.module import Module

MODEL = "model"
"""Folder of the finished model in a run: the chosen weights with all that was chosen after them."""

_SHOWN = 6


@dataclass(frozen=True)
class Trained:
    """A run to work with.

    Attributes:
        run_dir: its folder.
        request: what `renshu train` was asked, from `config.yaml`, with changes from flags.
        checkpoint: whose weights are used.
    """

    run_dir: Path
    request: Request
    checkpoint: Path

    @property
    def task(self) -> Task:
        return self.request.task

    def device(self) -> torch.device:
        """The first device that the options ask for."""
        from renshu.devices import resolve

        trainer = self.request.trainer
        return resolve(trainer["accelerator"], trainer["devices"])[0]


def find(run: str, ckpt_path: str, changes: Sequence[str] = ()) -> Trained:
    """The run of that path or name; raises ConfigError with the names there are."""
    run_dir = run_dir_of(run)
    request = parse_train(["--config", str(run_dir / "config.yaml"), *changes])
    return Trained(run_dir, request, _checkpoint(run_dir, ckpt_path))


def run_dir_of(run: str) -> Path:
    """The folder of a run given by path or by name below runs/."""
    for path in (Path(run), Path("runs") / run):
        if (path / "config.yaml").is_file():
            return path
    names = sorted(path.parent.name for path in Path("runs").glob("*/config.yaml"))
    raise ConfigError(
        f"there is no run {run!r}",
        allowed=", ".join(names[-20:]) or "the folder of a run (none is in runs/)",
        mend=near(Path(run).name, names),
    )


def _checkpoint(run_dir: Path, word: str) -> Path:
    """`best`: the finished model; `last`: the newest checkpoint; else a path."""
    from renshu.runs import find_checkpoint

    if word == "best":
        if (run_dir / MODEL / "manifest.json").is_file():
            return run_dir / MODEL
        raise ConfigError(
            "the run is not finished, so it has no chosen model yet",
            where=run_dir,
            mend="--ckpt_path last uses the newest checkpoint",
        )
    found = find_checkpoint(run_dir if word == "last" else word, run_dir.parent, run_dir.name)
    assert found is not None, "only the word 'last' may find nothing"
    return found


def module_class(task: Task) -> type[Module]:
    """The class that a task's `module` function returns, by its annotation."""
    build = task.load("module")
    returned = build.__annotations__["return"]
    return build.__globals__[returned] if isinstance(returned, str) else returned


def evaluation(task: Task) -> Callable[..., Any]:
    """The task's `evaluate(module, data, split, run_dir)`, which stands beside its `finish`."""
    return pkgutil.resolve_name(f"{task.finish.partition(':')[0]}:evaluate")


def figures(run_dir: Path, split: str) -> dict[str, str]:
    """The main figures of an evaluated part: name → value with its 95 % interval."""
    path = run_dir / "evaluation" / split / "metrics.json"
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    found = {name: text for name, value in metrics.items() if (text := _figure(value))}
    # Those with an interval are what the task holds to be its results.
    return dict(sorted(found.items(), key=lambda item: " to " not in item[1])[:_SHOWN])


def _figure(value: Any) -> str | None:
    if isinstance(value, dict) and isinstance(value.get("value"), float | int):
        low, high = value.get("low"), value.get("high")
        interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
        return f"{value['value']:.4f}{interval}"
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:.4f}"
    return None
