"""A model's weights and a checkpoint: reading, matching names and shapes, looking for NaN."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from renshu.errors import CheckpointError, near


def read_state(path: str | Path) -> dict[str, Any]:
    """The whole verified state of a checkpoint, on the CPU, under Lightning's key `state_dict`."""
    from renshu.checkpoints import read

    state = read(path)
    return {"state_dict": state.pop("model"), **state}


def load_weights(
    module: nn.Module, weights: Mapping[str, Tensor], where: str, strict: bool = True
) -> None:
    """Load a state_dict; CheckpointError lists the keys and shapes that differ."""
    own = module.state_dict()
    faults = [
        f"{name}: {list(weights[name].shape)} in the checkpoint, {list(ours.shape)} in the module"
        for name, ours in own.items()
        if isinstance(ours, Tensor) and name in weights and weights[name].shape != ours.shape
    ]
    if strict:
        missing = own.keys() - weights.keys()
        faults += [f"{name}: only in the module" for name in missing]
        for name in weights.keys() - own.keys():
            hint = near(name, missing)
            faults.append(f"{name}: only in the checkpoint" + (f" ({hint})" if hint else ""))
    if faults:
        shown = sorted(faults)[:20]
        if len(faults) > len(shown):
            shown.append(f"… and {len(faults) - len(shown)} more")
        raise CheckpointError(
            "\n    ".join(["the checkpoint is of another model:", *shown]),
            where=where,
            allowed="the same names and shapes",
            mend="build the module with the options of that run (its config.yaml)",
        )
    module.load_state_dict(weights, strict=False)


def finite_parameters(module: nn.Module) -> bool:
    """Whether no parameter is NaN or infinite. One host sync."""
    floating = [p for p in module.parameters() if p.is_floating_point() and p.numel()]
    sums = [p.detach().sum(dtype=torch.float32) for p in floating]
    return not sums or bool(torch.isfinite(torch.stack(sums)).all())
