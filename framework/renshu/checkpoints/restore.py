"""Optimisers and schedulers as plain trees, and back into fresh objects, bit for bit."""

from __future__ import annotations

import copy
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
    state = optimizer.state_dict()
    return {"class": type(optimizer).__name__, "shapes": _shapes(optimizer), **state}


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
    name, shapes = type(optimizer).__name__, _shapes(optimizer)
    _check(name, state.get("class", name), path)
    for place in shapes | state.get("shapes", shapes):
        shape = state.get("shapes", shapes).get(place, "nothing")
        _check(shapes.get(place, "nothing"), shape, f"{path}.{place}")
    plain = copy.deepcopy({k: v for k, v in state.items() if k not in ("class", "shapes")})
    # Its steps were taken before: a scheduler that is due first must not warn that there was none.
    optimizer._opt_called = True  # type: ignore[attr-defined]
    if type(optimizer).load_state_dict is not Optimizer.load_state_dict:
        optimizer.load_state_dict(plain)
        return
    for group, saved in zip(optimizer.param_groups, plain["param_groups"], strict=True):
        saved.update({key: group[key] for key in _IMPLEMENTATION if key in group})
        for key, value in group.items():
            if isinstance(value, Tensor) and isinstance(saved.get(key), Tensor):
                saved[key] = saved[key].to(value.device)
    optimizer.load_state_dict(plain)
    ids = chain.from_iterable(group["params"] for group in plain["param_groups"])
    params = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    for param, number in zip(params, ids, strict=True):
        if number in plain["state"]:
            optimizer.state[param] = _exact(optimizer.state[param], plain["state"][number])


def capture_scheduler(scheduler: Any) -> dict[str, Any]:
    """A scheduler's attributes without its optimiser and its functions: those come from new code.

    Schedulers within it (SequentialLR, ChainedScheduler, or one kept as an attribute) are captured
    alike; of a callable object its attributes. One with a `state_dict` of its own says itself.
    """
    if _is_torch(scheduler):
        state = {name: _captured(value) for name, value in vars(scheduler).items()}
        del state["optimizer"]
    else:
        state = {k: v for k, v in scheduler.state_dict().items() if not callable(v)}
    return {"class": type(scheduler).__name__, "state": state}


def restore_scheduler(scheduler: Any, state: Mapping[str, Any], path: str = "scheduler") -> None:
    """Put captured state into a scheduler that was made the same way; `state` is not changed.

    The optimiser's learning rates are not touched: `restore_optimizer` brings them.

    Raises:
        CheckpointError: another class of scheduler, or other schedulers inside it.
    """
    _check(type(scheduler).__name__, state["class"], path)
    if not _is_torch(scheduler):
        scheduler.load_state_dict(copy.deepcopy(state["state"]))
        return
    for name, saved in state["state"].items():
        here = vars(scheduler).get(name)
        vars(scheduler)[name] = _restored(here, saved, f"{path}.{name}")


def _captured(value: Any) -> Any:
    if isinstance(value, LRScheduler):
        return capture_scheduler(value)
    if callable(value):
        return dict(getattr(value, "__dict__", {}))
    return [_captured(item) for item in value] if type(value) is list else value


def _restored(here: Any, saved: Any, path: str) -> Any:
    """The saved value; schedulers and callables stay and take the state that was theirs."""
    if isinstance(here, LRScheduler):
        restore_scheduler(here, saved, path)
        return here
    if callable(here):
        if saved:
            vars(here).update(copy.deepcopy(saved))
        return here
    if type(here) is list and any(isinstance(h, LRScheduler) or callable(h) for h in here):
        _check(len(here), len(saved), f"the number of {path}")
        pairs = zip(here, saved, strict=True)
        return [_restored(*pair, f"{path}[{i}]") for i, pair in enumerate(pairs)]
    return copy.deepcopy(saved)


def _is_torch(scheduler: Any) -> bool:
    """Whether torch's own `state_dict` would save it: its attributes are its state."""
    return type(scheduler).state_dict.__module__.startswith("torch.")


def _shapes(optimizer: Optimizer) -> dict[str, list[int]]:
    return {
        f"param_groups[{i}].params[{j}]": list(param.shape)
        for i, group in enumerate(optimizer.param_groups)
        for j, param in enumerate(group["params"])
    }


def _check(now: object, saved: object, path: str) -> None:
    if now != saved:
        mend = "resume with what the run was started with, or load the weights alone"
        raise CheckpointError(f"{path} is {now}, the checkpoint has {saved}", where=path, mend=mend)


def _exact(loaded: Any, saved: Any) -> Any:
    """What torch loaded, but a tensor that it cast to its parameter's dtype as it was saved."""
    if isinstance(saved, Tensor) and isinstance(loaded, Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device)
    if isinstance(saved, dict):
        return {key: _exact(item, saved.get(key)) for key, item in loaded.items()}
    if type(saved) in (list, tuple):
        return type(saved)(map(_exact, loaded, saved))
    return loaded
