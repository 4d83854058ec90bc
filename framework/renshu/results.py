"""What log() writes to: newest values and weighted sums on the device, without a host sync."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from renshu.data import batch_size as leading_dimension
from renshu.errors import ConfigError

BATCH = "batch"
"""Phase of the steps and the hooks around a batch; other phases are "epoch" and None."""

_DEFAULTS = {
    ("train", BATCH): (True, False),
    ("train", "epoch"): (False, True),
    ("evaluate", BATCH): (False, True),
    ("evaluate", "epoch"): (False, True),
}


class Entry:
    """One logged name: how it is reduced, and its running value."""

    def __init__(self, name: str, on_step: bool, on_epoch: bool, prog_bar: bool, logger: bool):
        self.name, self.on_step, self.on_epoch = name, on_step, on_epoch
        self.prog_bar, self.logger = prog_bar, logger
        self.reduce = "mean"
        self.value: Any = None
        self.total: Tensor | None = None
        self.weight: Any = 0
        self.metric: Any = None

    @property
    def step_name(self) -> str:
        return f"{self.name}_step" if self.on_epoch else self.name

    @property
    def epoch_name(self) -> str:
        return f"{self.name}_epoch" if self.on_step else self.name

    def epoch_value(self) -> Any:
        """The epoch's value so far, a 0-dim Tensor, or None if nothing was logged."""
        if self.metric is not None:
            return self.metric.compute()
        if self.total is None:
            return None
        return self.total / self.weight if self.reduce == "mean" else self.total


class Results:
    """The values logged in one loop. The loop sets `phase`, `batch`, `count` and `loader`.

    Args:
        loop: "train" or "evaluate"; decides what on_step and on_epoch are unless given.
        device: where the sums live.
    """

    def __init__(self, loop: str, device: torch.device):
        self.loop, self.device = loop, device
        self.phase: str = "epoch"
        self.batch: Any = None
        self.count: int | None = None
        self.loader: int | None = None
        self.entries: dict[Any, Entry] = {}
        # float64 keeps an epoch's mean exact to 1e-7; MPS and XLA have none.
        wide = device.type in ("cpu", "cuda")
        self.dtype = torch.float64 if wide else torch.float32

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool,
        logger: bool | None,
        on_step: bool | None,
        on_epoch: bool | None,
        reduce: str | Callable[..., Any],
        add_loader: bool,
        batch_size: int | None,
    ) -> None:
        key = name if self.loader is None or not add_loader else (name, self.loader)
        entry = self.entries.get(key)
        if entry is None:
            entry = self._enter(key, value, prog_bar, logger, on_step, on_epoch, reduce)
        if isinstance(value, Tensor):
            value = value.detach()
            if value.numel() != 1:
                raise _not_a_number(name, f"a Tensor of shape {list(value.shape)}")
        elif entry.metric is not None:
            self._log_metric(entry, value)
            return
        entry.value = value
        if entry.on_epoch:
            self._add(entry, value, batch_size)

    def _enter(
        self,
        key: Any,
        value: Any,
        prog_bar: bool,
        logger: bool | None,
        on_step: bool | None,
        on_epoch: bool | None,
        reduce: str | Callable[..., Any],
    ) -> Entry:
        """The first value under a name decides how the name is treated."""
        name = key if isinstance(key, str) else f"{key[0]}/dataloader_idx_{key[1]}"
        default_step, default_epoch = _DEFAULTS[self.loop, self.phase]
        step = default_step if on_step is None else on_step
        epoch = default_epoch if on_epoch is None else on_epoch
        if step and self.phase == "epoch":
            raise ConfigError(
                f"log({name!r}, on_step=True) in a hook of an epoch: there is no step",
                allowed="on_epoch=True, or on_step=True in a step or a batch hook",
            )
        entry = Entry(name, step, epoch, prog_bar, logger is not False)
        if _is_metric(value):
            entry.metric = value
        elif not isinstance(value, (Tensor, int, float)):
            raise _not_a_number(name, type(value).__name__)
        else:
            entry.reduce = _reduction(reduce, name)
        self.entries[key] = entry
        return entry

    def _add(self, entry: Entry, value: Any, batch_size: int | None) -> None:
        if not isinstance(value, Tensor):
            value = torch.tensor(value, dtype=self.dtype, device=self.device)
        value = value.reshape(())
        if entry.reduce == "mean":
            weight = self.weight() if batch_size is None else batch_size
            if entry.total is None:
                entry.total = torch.zeros((), dtype=self.dtype, device=self.device)
            entry.total.add_(value, alpha=weight)
            entry.weight += weight
        elif entry.total is None:
            entry.total = value.to(self.dtype, copy=True)
        else:
            entry.total = _REDUCTIONS[entry.reduce](entry.total, value.to(self.dtype))

    def _log_metric(self, entry: Entry, metric: Any) -> None:
        if metric is not entry.metric:
            raise ConfigError(f"{entry.name!r} was logged with another metric object before")
        if entry.on_step:
            entry.value = metric._forward_cache

    def weight(self) -> int:
        """How many samples the current batch has."""
        if self.phase == "epoch":
            return 1
        return leading_dimension(self.batch) if self.count is None else self.count

    # --- reading: each returns device tensors; the caller decides when to sync

    def step_values(self, prog_bar: bool = False) -> dict[str, Any]:
        """Newest values of the names logged on_step, for the loggers or for the progress bar."""
        return {
            entry.step_name: entry.value
            for entry in self.entries.values()
            if entry.on_step and entry.value is not None
            if (entry.prog_bar if prog_bar else entry.logger)
        }

    def newest(self) -> dict[str, Any]:
        """Newest value of every name logged on_step, whoever it is meant for."""
        return {
            name: entry.value
            for entry in self.entries.values()
            if entry.on_step and entry.value is not None
            for name in {entry.step_name, entry.name}
        }

    def epoch_values(self) -> dict[str, tuple[Entry, Any]]:
        """The epoch's reduced values by name."""
        found = {}
        for entry in self.entries.values():
            if entry.on_epoch and (value := entry.epoch_value()) is not None:
                found[entry.epoch_name] = entry, value
        return found

    def reset(self) -> None:
        """Start an epoch: sums empty, logged metrics reset."""
        for entry in self.entries.values():
            if entry.metric is not None:
                entry.metric.reset()
            entry.value, entry.total, entry.weight = None, None, 0
        self.entries = {}

    # --- state

    def state_dict(self) -> list[dict[str, Any]]:
        """The running values; a metric's own state is saved with the module's metrics."""
        return [
            {"key": key, **{slot: getattr(entry, slot) for slot in _SAVED}}
            for key, entry in self.entries.items()
            if entry.metric is None
        ]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        self.entries = {}
        for saved in state:
            entry = Entry(saved["name"], False, False, False, False)
            for slot in _SAVED:
                value = saved[slot]
                setattr(entry, slot, value.to(self.device) if isinstance(value, Tensor) else value)
            self.entries[saved["key"]] = entry


_SAVED = ("name", "on_step", "on_epoch", "prog_bar", "logger", "reduce", "value", "total", "weight")

_REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "min": torch.minimum,
    "max": torch.maximum,
}


def _reduction(reduce: str | Callable[..., Any], name: str) -> str:
    text = reduce if isinstance(reduce, str) else getattr(reduce, "__name__", str(reduce))
    text = {"avg": "mean", "amin": "min", "amax": "max"}.get(text, text)
    if text != "mean" and text not in _REDUCTIONS:
        raise ConfigError(
            f"log({name!r}, reduce_fx={reduce!r}) is unknown", allowed="mean, sum, min, max"
        )
    return text


def _not_a_number(name: str, got: str) -> ConfigError:
    return ConfigError(
        f"log({name!r}) got {got}",
        allowed="a number, a Tensor with one element, or a torchmetrics Metric",
        mend="log its mean, or its parts under names of their own",
    )


def _is_metric(value: Any) -> bool:
    torchmetrics = sys.modules.get("torchmetrics")
    return torchmetrics is not None and isinstance(value, torchmetrics.Metric)


def metric_states(module: nn.Module) -> dict[str, Any]:
    """States of all torchmetrics objects in a module, which its state_dict leaves out."""
    states = {}
    for name, metric in _metrics(module):
        values = {key: getattr(metric, key) for key in metric._defaults}
        states[name] = {"values": values, "count": metric._update_count}
    return states


def load_metric_states(module: nn.Module, states: dict[str, Any], device: torch.device) -> None:
    """Put back what `metric_states` gave."""
    for name, metric in _metrics(module):
        if name in states:
            for key, value in states[name]["values"].items():
                moved = (
                    [v.to(device) for v in value] if isinstance(value, list) else value.to(device)
                )
                setattr(metric, key, moved)
            metric._update_count = states[name]["count"]


def _metrics(module: nn.Module) -> Iterable[tuple[str, Any]]:
    if "torchmetrics" not in sys.modules:
        return []
    return [(name, part) for name, part in module.named_modules() if _is_metric(part)]


def to_host(values: Iterable[Any]) -> list[float]:
    """Numbers and 0-dim tensors → floats, with one transfer for all tensors."""
    items = list(values)
    tensors = [v.detach().reshape(()) for v in items if isinstance(v, Tensor)]
    if tensors:
        wide = tensors[0].device.type in ("cpu", "cuda")
        read = iter(torch.stack([t.double() if wide else t.float() for t in tensors]).tolist())
    else:
        read = iter(())
    return [next(read) if isinstance(v, Tensor) else float(v) for v in items]
