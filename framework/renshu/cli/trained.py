"""A run folder that has been trained: its options, its model, its figures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from renshu.cli.parser import Request, parse_train
from renshu.errors import ConfigError, near

if TYPE_CHECKING:
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

    def place(self, module: Module) -> Module:
        """The module on the first device that the options ask for."""
        from renshu.devices import resolve

        trainer = self.request.trainer
        return module.to(resolve(trainer["accelerator"], trainer["devices"])[0])


class CommandParser(argparse.ArgumentParser):
    """The arguments of a command; wrong ones are told like every other wrong input."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"renshu {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        usage = " ".join(self.format_usage().removeprefix("usage: ").split())
        raise ConfigError(message, allowed=usage, mend=f"{self.prog} --help shows more")


class Arguments(CommandParser):
    """The flags of a command that works with a trained run; others are options of its task."""

    def __init__(self, command: str, description: str, weights: bool = True) -> None:
        super().__init__(command, description)
        self.add_argument("run", metavar="RUN", help="folder of a run, or its name below runs/")
        if weights:
            words = "best: the finished model (default); last: the newest checkpoint; or a path"
            self.add_argument("--ckpt_path", default="best", help=words)

    def find(self, asked: argparse.Namespace, changes: Sequence[str]) -> Trained:
        """The run asked for; raises ConfigError with the names there are."""
        folder = run_dir(asked.run)
        own = [flag[2:] for flag in self._option_string_actions if flag.startswith("--")]
        request = parse_train(["--config", str(folder / "config.yaml"), *changes], own)
        return Trained(folder, request, _checkpoint(folder, asked.ckpt_path))


def run_dir(run: str) -> Path:
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


def _checkpoint(folder: Path, word: str) -> Path:
    """`best`: the finished model; `last`: the newest checkpoint; else a path."""
    from renshu.runs import find_checkpoint

    model = folder / MODEL
    if word != "best":
        found = find_checkpoint(folder if word == "last" else word, folder.parent, folder.name)
        assert found is not None, "only the word 'last' may find nothing"
        return found
    if not (model / "manifest.json").is_file():
        said = "the run is not finished, so it has no chosen model yet"
        raise ConfigError(said, where=folder, mend="--ckpt_path last: the newest checkpoint")
    return model


def figures(folder: Path, split: str) -> dict[str, str]:
    """The main figures of an evaluated part: name → value with its 95 % interval."""
    path = folder / "evaluation" / split / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found = {name: text for name, value in metrics.items() if (text := _figure(value))}
    # Those with an interval are what the task holds to be its results.
    return dict(sorted(found.items(), key=lambda item: " to " not in item[1])[:_SHOWN])


def _figure(value: Any) -> str | None:
    if isinstance(value, dict) and isinstance(value.get("value"), float | int):
        low, high = value.get("low"), value.get("high")
        interval = "" if low is None or high is None else f" ({low:.4f} to {high:.4f})"
        return f"{value['value']:.4f}{interval}"
    return f"{value:.4f}" if isinstance(value, float) else None
