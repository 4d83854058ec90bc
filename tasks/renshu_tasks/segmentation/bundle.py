"""Reads the network of a MONAI bundle as data: nothing of its configuration is run.

MONAI's own parser evaluates every "$…" and builds every "_target_"; here one of three networks is
built from plain numbers and names, and weights are read without a pickle's code.
"""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from renshu.errors import DataError, near

NETWORKS = ("UNet", "DynUNet", "SegResNet")
_CONFIGS = ("inference.json", "train.json")
_WEIGHTS = ("model.safetensors", "model.pt")
_MARKS = ("$", "@", "%")
"""What MONAI's parser evaluates, looks up or imports."""


def read_bundle(folder: Path) -> nn.Module:
    """The network of a bundle with its weights, in evaluation mode.

    It is `network_def` of configs/inference.json or train.json, with models/model.safetensors or
    model.pt. Raises DataError for a network that is not in NETWORKS, for an argument that is no
    plain value (an expression, a reference), and for weights that hold more than tensors.
    """
    file = _first(folder / "configs", _CONFIGS)
    try:
        config = json.loads(file.read_text(encoding="utf-8"))["network_def"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise DataError(f"the bundle has no network_def: {error}", where=file) from error
    network = _network(config, file)
    weights = _first(folder / "models", _WEIGHTS)
    try:
        network.load_state_dict(_state(weights))
    except (RuntimeError, OSError, pickle.UnpicklingError, ValueError, AttributeError) as error:
        said = str(error).split("\n")[0]
        raise DataError(f"the weights cannot be used: {said}", where=weights) from error
    return network.eval()


def _first(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError("the bundle is incomplete", where=folder, allowed=" or ".join(names))


def _network(config: Any, file: Path) -> nn.Module:
    from monai.networks import nets

    name = str(config.get("_target_", "")).rpartition(".")[2] if isinstance(config, dict) else ""
    if name not in NETWORKS:
        raise DataError(
            f"the bundle's network is {name or config!r}",
            where=f"{file}, network_def",
            allowed=", ".join(NETWORKS),
            mend=near(name, NETWORKS),
        )
    kind = getattr(nets, name)
    arguments = {key: value for key, value in config.items() if not key.startswith("_")}
    known = inspect.signature(kind).parameters
    for key, value in arguments.items():
        where = f"{file}, network_def.{key}"
        if key not in known:
            raise DataError(f"{name} has no argument {key!r}", where=where, mend=near(key, known))
        _check_plain(value, where)
    try:
        return kind(**arguments)
    except (TypeError, ValueError, KeyError) as error:
        raise DataError(f"{name} cannot be built: {error}", where=file) from error


def _check_plain(value: Any, where: str) -> None:
    """Raise DataError for anything that MONAI would evaluate."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            raise DataError("a nested _target_ is not built", where=where, allowed="plain values")
        for key, inner in value.items():
            _check_plain(inner, f"{where}.{key}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{where}[{number}]")
    elif isinstance(value, str) and value.startswith(_MARKS):
        raise DataError(
            f"the expression {value[:80]!r} is not evaluated",
            where=where,
            allowed="numbers, names and lists of them",
            mend="write the value itself",
        )


def _state(file: Path) -> dict[str, Any]:
    """Tensors by name; a checkpoint of Ignite keeps them under "model" or "state_dict"."""
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(file)
    found = torch.load(file, map_location="cpu", weights_only=True)
    return next((found[key] for key in ("model", "state_dict") if key in found), found)
