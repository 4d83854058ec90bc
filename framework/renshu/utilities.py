"""Small tools under the names that Lightning's users know."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from renshu import messages
from renshu.combined import CombinedLoader
from renshu.data import move as move_data_to_device
from renshu.messages import say

__all__ = ["CombinedLoader", "grad_norm", "measure_flops", "move_data_to_device", "rank_zero_info"]
__all__ += ["rank_zero_only", "rank_zero_warn", "suggested_max_num_workers"]

F = TypeVar("F", bound=Callable[..., Any])


def rank_zero_only(function: F) -> F:
    """A function that does nothing, and returns None, in all processes of a run but the first."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        return None if messages.silent else function(*args, **kwargs)

    return called  # type: ignore[return-value]


def rank_zero_info(text: object) -> None:
    """A line on stderr from the first process."""
    say(str(text))


rank_zero_warn = rank_zero_info


def grad_norm(module: nn.Module, norm_type: float, group_separator: str = "/") -> dict[str, float]:
    """The norm of each parameter's gradient and of all together, by name; for `log_dict`."""
    norms: dict[str, Tensor] = {
        name: torch.linalg.vector_norm(p.grad, norm_type)
        for name, p in module.named_parameters()
        if p.grad is not None
    }
    if not norms:
        return {}
    total = torch.linalg.vector_norm(torch.stack(list(norms.values())), norm_type)
    stem = f"grad_{norm_type}_norm{group_separator}"
    found = {f"{stem}{name}": norm for name, norm in norms.items()}
    found[f"grad_{norm_type}_norm_total"] = total
    return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))


def measure_flops(
    model: nn.Module,
    forward_fn: Callable[[], Tensor],
    loss_fn: Callable[[Tensor], Tensor] | None = None,
) -> int:
    """Floating-point operations of a forward pass, and of the backward pass with `loss_fn`."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        outputs = forward_fn()
        if loss_fn is not None:
            loss_fn(outputs).backward()
    return counter.get_total_flops()


def suggested_max_num_workers(local_world_size: int) -> int:
    """Workers a process that leave each processor one, shared by the processes of a machine."""
    return max(1, usable_cores() // local_world_size - 1)


def usable_cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
