"""What Lightning's public surface is, found by inspection, and where renshu has it.

`PYTHONPATH=tests python tests/parity/surface.py` moves what was built from "missing" to "same" in
tests/surface.json.

A surface is a dict: public name → the object in Lightning, None for an attribute of instances.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path
from typing import Any

from compare import lightning, trainer
from torch import nn

import renshu
from renshu.errors import ConfigError

FILE = Path(__file__).parent.parent / "surface.json"
CLASSES = ("LightningModule", "LightningDataModule", "Trainer", "Callback")
PACKAGES = ("", "callbacks", "loggers", "profilers", "tuner", "strategies", "accelerators",
            "plugins", "utilities", "cli")  # fmt: skip


def surfaces() -> dict[str, dict[str, Any]]:
    """All of Lightning's surfaces by the name of their section in surface.json."""
    found = {f"renshu.{name}": _members(getattr(lightning, name)) for name in CLASSES}
    found["renshu.Trainer()"] = dict.fromkeys(_arguments(lightning.Trainer))
    for package in PACKAGES:
        module = importlib.import_module(f"pytorch_lightning.{package}".rstrip("."))
        found[f"renshu.{package}".rstrip(".")] = _public(module)
    return found


def _members(kind: type) -> dict[str, Any]:
    """Public members that Lightning itself gives a class, and what its instances get."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if base not in (object, nn.Module) and "lightning" in base.__module__:
            found = {n: v for n, v in vars(base).items() if not n.startswith("_")} | found
    instance = trainer(lightning) if kind is lightning.Trainer else kind()
    known = vars(nn.Module()) if isinstance(instance, nn.Module) else {}
    own = [n for n in vars(instance) if not n.startswith("_") and n not in known]
    return dict.fromkeys(own) | found


def _public(module: Any) -> dict[str, Any]:
    """What `__all__` names, else the classes and functions that are defined below the package."""
    names = getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) or inspect.isfunction(value)
        if value.__module__.startswith(module.__name__) and not name.startswith("_")
    ]
    if module.__name__.endswith("tuner"):
        names = ["Tuner"]
        module = importlib.import_module("pytorch_lightning.tuner.tuning")
    return {name: getattr(module, name) for name in names}


def _arguments(function: Any) -> list[str]:
    """Names of a callable's arguments; a hook's `pl_module` is called `module` here."""
    found = inspect.signature(function).parameters.values()
    return [
        p.name
        for p in found
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in ("self", "pl_module")
    ]


def ours(section: str) -> Any:
    """What stands for a section in renshu: a module, class or Trainer; None if there is none."""
    if section == "renshu.Trainer":
        return trainer(renshu)
    path = section.removesuffix("()")
    if path.rpartition(".")[2] in CLASSES:
        return getattr(renshu, path.rpartition(".")[2])
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        return None


def has(section: str, name: str) -> bool:
    """Whether renshu has a public name of a section."""
    if section == "renshu.Trainer()":
        return name in renshu.Trainer(barebones=True).options.__dataclass_fields__
    try:
        return hasattr(ours(section), name)
    except ConfigError:  # it is there, and needs a fit
        return True


def lacking(section: str, name: str, theirs: Any) -> list[str]:
    """Arguments of Lightning's that renshu's callable of the same name does not take."""
    if not callable(theirs) or section == "renshu.Trainer()" or name in CLASSES:
        return []
    function = getattr(ours(section), name)
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return []
    taken = [p.name for p in parameters]
    return [f"{name}({arg})" for arg in _arguments(theirs) if arg not in taken]


def move_what_was_built() -> None:
    """Bring tests/surface.json up to date; arguments that are not taken yet stay or come in."""
    listed = json.loads(FILE.read_text())
    for section, names in surfaces().items():
        same, missing = listed[section]["same"], listed[section]["missing"]
        same += [name for name in missing if "(" not in name and has(section, name)]
        same.sort()
        known = {*listed[section]["better"], *listed[section]["refused"]}
        lack = {arg for name in same for arg in lacking(section, name, names[name])} - known
        absent = {name for name in missing if "(" not in name and name not in same}
        texts = {name: missing.get(name, "not built yet") for name in sorted(absent | lack)}
        listed[section]["missing"] = texts
    FILE.write_text(json.dumps(listed, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    move_what_was_built()
