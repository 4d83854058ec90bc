"""Optimisers and schedulers as plain trees, and back into fresh objects, bit for bit."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from renshu.errors import CheckpointError

_IMPLEMENTATION = ("foreach", "fused", "capturable")
"""Options that say how a device computes the step: they come from the run, not from the file."""


def capture_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """The optimiser's state_dict, its class and the shapes of its parameters; nothing is copied."""
    shapes = [[list(p.shape) for p in group["params"]] for group in optimizer.param_groups]
    return {"class": type(optimizer).__name__, "shapes": shapes, **optimizer.state_dict()}


def restore_optimizer(
    optimizer: Optimizer, state: Mapping[str, Any], path: str = "optimizer"
) -> None:
    """Put captured state into an optimiser over parameters of the same shapes.

    Unlike `Optimizer.load_state_dict` this keeps every tensor's dtype (fp32 moments of bf16
    parameters) and only moves it to its parameter's device; `state` is not changed and not used
    afterwards. An optimiser with its own `load_state_dict` restores itself.

    Args:
        state: what `capture_optimizer` gave, or a torch state_dict.
        path: how errors name the optimiser.

    Raises:
        CheckpointError: another class, or other groups or parameters than the saved ones.
    """
    _check_class(optimizer, state, path)
    plain = {key: value for key, value in state.items() if key not in ("class", "shapes")}
    if type(optimizer).load_state_dict is not Optimizer.load_state_dict:
        optimizer.load_state_dict(plain)
        return
    for hook in optimizer._optimizer_load_state_dict_pre_hooks.values():
        plain = hook(optimizer, plain) or plain
    _check_groups(optimizer, {**state, **plain}, path)
    for group, saved in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        _update_group(group, saved)
    groups = optimizer.param_groups
    ids = chain.from_iterable(group["params"] for group in plain["param_groups"])
    owners = ((param, group) for group in groups for param in group["params"])
    owner = dict(zip(ids, owners, strict=True))
    restored: defaultdict[Any, Any] = defaultdict(dict)
    moved: dict[int, Tensor] = {}
    for key, value in plain["state"].items():
        if key in owner:
            restored[owner[key][0]] = _placed(value, *owner[key], None, moved)
        else:
            restored[key] = copy.deepcopy(value)
    # As torch does: fills in what versions before this one did not save.
    optimizer.__setstate__({"state": restored, "param_groups": groups})
    for hook in optimizer._optimizer_load_state_dict_post_hooks.values():
        hook(optimizer)


def capture_scheduler(scheduler: Any) -> dict[str, Any]:
    """A scheduler's state without its optimiser and its functions: those come from new code.

    Schedulers inside it (SequentialLR, ChainedScheduler, or one kept as an attribute) are captured
    alike, under `inner`.
    """
    inner = _inner(scheduler)
    hidden = {id(other) for other in inner.values()}
    state = {
        key: value
        for key, value in scheduler.state_dict().items()
        if key != "_schedulers"
        and id(value) not in hidden
        and not callable(value)
        and not isinstance(value, Optimizer)
    }
    captured = {name: capture_scheduler(other) for name, other in inner.items()}
    return {"class": type(scheduler).__name__, "state": state, "inner": captured}


def restore_scheduler(scheduler: Any, state: Mapping[str, Any], path: str = "scheduler") -> None:
    """Put captured state into a scheduler that was made the same way; `state` is not changed.

    The optimiser's learning rates are not touched: `restore_optimizer` brings them.

    Raises:
        CheckpointError: another class of scheduler, or other schedulers inside it.
    """
    _check_class(scheduler, state, path)
    inner = _inner(scheduler)
    if inner.keys() != state["inner"].keys():
        raise CheckpointError(
            f"{path} holds other schedulers than the saved one",
            where=path,
            allowed=", ".join(state["inner"]) or "none",
        )
    plain = copy.deepcopy(state["state"])
    if hasattr(scheduler, "_schedulers"):
        plain["_schedulers"] = []  # torch asks for the key; ours are restored below
    groups, rates = len(scheduler.optimizer.param_groups), plain.get("base_lrs")
    if rates is not None and len(rates) != groups:
        raise CheckpointError(
            f"{path} has {groups} parameter groups, the checkpoint {len(rates)}", where=path
        )
    try:
        scheduler.load_state_dict(plain)
    except (KeyError, IndexError, AttributeError, TypeError) as e:
        raise CheckpointError(
            f"{path} does not take the saved state", where=f"{type(e).__name__}: {e}"
        ) from e
    for name, other in inner.items():
        restore_scheduler(other, state["inner"][name], path + name)


def _inner(scheduler: Any) -> dict[str, Any]:
    """The schedulers inside one, by how they are reached."""
    listed = getattr(scheduler, "_schedulers", ())
    inner: dict[str, Any] = {f"._schedulers[{i}]": other for i, other in enumerate(listed)}
    for name, value in vars(scheduler).items():
        if isinstance(value, LRScheduler):
            inner[f".{name}"] = value
    return inner


def _check_class(thing: object, state: Mapping[str, Any], path: str) -> None:
    saved, name = state.get("class"), type(thing).__name__
    if saved is not None and saved != name:
        raise CheckpointError(
            f"{path} is {name}, the checkpoint has {saved}",
            where=path,
            allowed=saved,
            mend="use the class the run was started with, or load the weights alone",
        )


def _check_groups(optimizer: Optimizer, state: Mapping[str, Any], path: str) -> None:
    groups, saved = optimizer.param_groups, state["param_groups"]
    if len(groups) != len(saved):
        raise CheckpointError(
            f"{path} has {len(groups)} parameter groups, the checkpoint {len(saved)}", where=path
        )
    for i, (group, other) in enumerate(zip(groups, saved, strict=True)):
        where = f"{path}.param_groups[{i}]"
        if len(group["params"]) != len(other["params"]):
            raise CheckpointError(
                f"{where} has {len(group['params'])} parameters, "
                f"the checkpoint {len(other['params'])}",
                where=where,
            )
        shapes = state["shapes"][i] if "shapes" in state else ()
        for j, (param, shape) in enumerate(zip(group["params"], shapes, strict=False)):
            if list(param.shape) != list(shape):
                raise CheckpointError(
                    f"parameter {j} has the shape {list(param.shape)}, the saved one {shape}",
                    where=f"{where}.params[{j}]",
                )


def _update_group(group: dict[str, Any], saved: Mapping[str, Any]) -> None:
    for key, value in saved.items():
        if key == "params" or (key in _IMPLEMENTATION and key in group):
            continue
        if isinstance(value, Tensor):
            here = group.get(key)
            value = value.to(here.device if isinstance(here, Tensor) else "cpu", copy=True)
        else:
            value = copy.deepcopy(value)
        group[key] = value


def _placed(
    value: Any, param: Tensor, group: dict[str, Any], key: object, moved: dict[int, Tensor]
) -> Any:
    """State of a parameter, copied to its device; tensors that were one stay one."""
    if isinstance(value, Tensor):
        if id(value) not in moved:
            on_device = key != "step" or group.get("capturable") or group.get("fused")
            moved[id(value)] = value.to(param.device if on_device else "cpu", copy=True)
        return moved[id(value)]
    if isinstance(value, dict):
        return {k: _placed(item, param, group, k, moved) for k, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_placed(item, param, group, None, moved) for item in value)
    return copy.deepcopy(value)
