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
    unknown, missing = weights.keys() - own.keys(), own.keys() - weights.keys()
    lines = [f"{name}: only in the checkpoint{_hint(name, missing)}" for name in unknown]
    lines += [f"{name}: only in the module" for name in missing]
    if strict and lines:
        raise _other_model(lines, where)
    shapes = [
        f"{name}: {list(weights[name].shape)} in the checkpoint, "
        f"{list(own[name].shape)} in the module"
        for name in own.keys() & weights.keys()
        if isinstance(own[name], Tensor) and own[name].shape != weights[name].shape
    ]
    if shapes:
        raise _other_model(shapes, where)
    module.load_state_dict(weights, strict=False)


def _hint(name: str, others: Any) -> str:
    hint = near(name, others)
    return f" ({hint})" if hint else ""


def _other_model(lines: list[str], where: str) -> CheckpointError:
    shown = sorted(lines)[:20]
    more = f"\n    … and {len(lines) - 20} more" if len(lines) > 20 else ""
    return CheckpointError(
        "the checkpoint is of another model:\n    " + "\n    ".join(shown) + more,
        where=where,
        allowed="the same names and shapes",
        mend="build the module with the options of that run (its config.yaml)",
    )


def finite_parameters(module: nn.Module) -> bool:
    """Whether no parameter is NaN or infinite. One host sync."""
    sums = [p.detach().sum(dtype=torch.float32) for p in module.parameters() if _floating(p)]
    return not sums or bool(torch.isfinite(torch.stack(sums)).all())


def _floating(parameter: Tensor) -> bool:
    return parameter.is_floating_point() and parameter.numel() > 0
