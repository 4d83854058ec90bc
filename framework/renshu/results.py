"""What log() writes to: newest values and weighted sums on the device, without a host sync."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renshu.data import batch_size as leading_dimension
from renshu.data import move
from renshu.errors import ConfigError, RunError, unknown

if TYPE_CHECKING:
    from renshu.strategies import SingleDevice

BATCH = "batch"
"""Phase of the steps and the hooks around a batch; other phases are "epoch" and None."""

How = tuple[bool, bool | None, bool | None, bool | None, str | Callable[..., Any]]
"""What `log` was told beside the value: prog_bar, logger, on_step, on_epoch, reduce_fx."""


@dataclass(eq=False)
class Entry:
    """One logged name: how it is reduced, and its running value."""

    name: str
    on_step: bool
    on_epoch: bool
    prog_bar: bool
    logger: bool
    reduce: str = "mean"
    value: Any = None
    total: Tensor | None = None
    weight: Any = 0
    metric: Any = None
    shared: Any = None
    """The epoch's value of all processes, once they have brought theirs together."""

    @property
    def step_name(self) -> str:
        return f"{self.name}_step" if self.on_epoch else self.name

    @property
    def epoch_name(self) -> str:
        return f"{self.name}_epoch" if self.on_step else self.name

    def epoch_value(self) -> Any:
        """The epoch's value so far, a 0-dim Tensor, or None if nothing was logged."""
        if self.shared is not None:
            return self.shared
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
        owners: id of a metric object → the loop that logs it, of all loops of a stage.
    """

    def __init__(
        self, loop: str, device: torch.device, owners: dict[int, str] | None = None
    ) -> None:
        self.loop, self.device = loop, device
        self.owners = {} if owners is None else owners
        self.phase: str = "epoch"
        self.batch: Any = None
        self.count: int | None = None
        self.loader: int | None = None
        self.entries: dict[Any, Entry] = {}
        self.dtype = _wide(device)

    def log(
        self, name: str, value: Any, how: How, add_loader: bool, batch_size: int | None
    ) -> None:
        key = name if self.loader is None or not add_loader else (name, self.loader)
        entry = self.entries.get(key)
        if entry is None:
            entry = self._enter(key, value, *how)
        if isinstance(value, Tensor):
            value = value.detach()
            if value.numel() != 1:
                raise _not_a_number(name, f"a Tensor of shape {list(value.shape)}")
        elif entry.metric is not None:
            if value is not entry.metric:
                raise ConfigError(f"{entry.name!r} was logged with another metric object before")
            if entry.on_step:
                entry.value = value._forward_cache
            return
        entry.value = value
        if entry.on_epoch:
            self._add(entry, value, batch_size)

    def _enter(
        self, key: Any, value: Any, prog_bar: bool, logger: Any, step: Any, epoch: Any, reduce: Any
    ) -> Entry:
        """The first value under a name decides how the name is treated."""
        name = key if isinstance(key, str) else f"{key[0]}/dataloader_idx_{key[1]}"
        in_step = self.loop == "train" and self.phase == BATCH
        step = in_step if step is None else step
        epoch = not in_step if epoch is None else epoch
        if step and self.phase == "epoch":
            raise ConfigError(
                f"log({name!r}, on_step=True) in a hook of an epoch: there is no step",
                allowed="on_epoch=True, or on_step=True in a step or a batch hook",
            )
        entry = Entry(name, step, epoch, prog_bar, logger is not False)
        if _is_metric(value):
            if self.owners.setdefault(id(value), self.loop) != self.loop:
                raise ConfigError(
                    f"{name!r} is a metric object that training and validation both log: they"
                    " would be mixed",
                    mend="an object for each: self.val_metric = self.train_metric.clone()",
                )
            entry.metric = value
        elif isinstance(value, (Tensor, int, float)):
            entry.reduce = _reduction(reduce, name)
        else:
            raise _not_a_number(name, type(value).__name__)
        self.entries[key] = entry
        return entry

    def _add(self, entry: Entry, value: Any, batch_size: int | None) -> None:
        if not isinstance(value, Tensor):
            value = torch.tensor(value, dtype=self.dtype, device=self.device)
        value, entry.shared = value.reshape(()), None
        padded = self.phase == BATCH and self.count == 0
        if entry.reduce == "mean":
            weight = 0 if padded else self.weight() if batch_size is None else batch_size
            if entry.total is None:
                entry.total = torch.zeros((), dtype=self.dtype, device=self.device)
            entry.total.add_(value, alpha=weight)
            entry.weight += weight
        elif padded:
            return
        elif entry.total is None:
            entry.total = value.to(self.dtype, copy=True)
        else:
            entry.total = _REDUCTIONS[entry.reduce](entry.total, value.to(self.dtype))

    def weight(self) -> int:
        """How many samples the current batch has."""
        if self.phase == "epoch":
            return 1
        return leading_dimension(self.batch) if self.count is None else self.count

    def synchronise(self, strategy: SingleDevice) -> None:
        """Bring together what all processes logged; all of them call it at an epoch's end.

        Raises:
            RunError: they logged different names.
        """
        if strategy.world == 1:
            return
        mine = {e.name: e for e in self.entries.values() if e.on_epoch and e.metric is None}
        objects = [e.name for e in self.entries.values() if e.on_epoch and e.metric is not None]
        sums = to_host([0.0 if e.total is None else e.total for e in mine.values()])
        told = [
            (None if e.total is None else s, e.weight)
            for e, s in zip(mine.values(), sums, strict=True)
        ]
        rows = list(zip(mine, told, strict=True))
        everyone = [dict(theirs) for theirs in strategy.gather(rows, "an epoch's values")]
        # They bring themselves together, one after the other.
        for rank, names in enumerate(strategy.gather(objects, "an epoch's metrics")):
            if names != objects:
                said = f"process {rank} logged the metrics {names}, another {objects}"
                raise RunError(said, mend="log metric objects in all processes, in one order")
        for rank, rows in enumerate(everyone):
            if other := sorted(rows.keys() ^ everyone[0].keys()):
                said = f"process {rank} and process 0 logged different values: {', '.join(other)}"
                raise RunError(said, mend="call log() in all processes, not below is_global_zero")
        for name, entry in mine.items():
            rows = [found[name] for found in everyone]
            values = [total for total, _ in rows if total is not None]
            weight = sum(weight for _, weight in rows)
            if values:
                reduced = {"min": min, "max": max}.get(entry.reduce, math.fsum)(values)
                reduced = reduced / weight if entry.reduce == "mean" else reduced
                entry.shared = torch.tensor(reduced, dtype=self.dtype, device=self.device)

    # --- reading: each returns device tensors; the caller decides when to sync

    def _stepped(self) -> list[Entry]:
        return [e for e in self.entries.values() if e.on_step and e.value is not None]

    def step_values(self, prog_bar: bool = False) -> dict[str, Any]:
        """Newest values of the names logged on_step, for the loggers or for the progress bar."""
        wanted = (e for e in self._stepped() if (e.prog_bar if prog_bar else e.logger))
        return {entry.step_name: entry.value for entry in wanted}

    def stepped(self) -> dict[str, Any]:
        """Newest value of every name logged on_step."""
        return {name: e.value for e in self._stepped() for name in (e.step_name, e.name)}

    def newest(self) -> dict[str, Any]:
        """Newest value of every name, whoever it is meant for; at an epoch's end the epoch's."""
        found = self.stepped()
        if self.phase == "epoch":
            for name, (entry, value) in self.epoch_values().items():
                found[name] = found[entry.name] = value
        return found

    def epoch_values(self) -> dict[str, tuple[Entry, Any]]:
        """The epoch's reduced values by name."""
        values = [(e, e.epoch_value()) for e in self.entries.values() if e.on_epoch]
        return {e.epoch_name: (e, value) for e, value in values if value is not None}

    def reset(self) -> None:
        """Start an epoch: sums empty, logged metrics reset."""
        for entry in self.entries.values():
            if entry.metric is not None:
                entry.metric.reset()
        self.entries = {}

    # --- state

    def state_dict(self) -> list[dict[str, Any]]:
        """The running values; a metric's own state is saved with the module's metrics."""
        running = {key: entry for key, entry in self.entries.items() if entry.metric is None}
        found = [{"key": key, **vars(entry), "shared": None} for key, entry in running.items()]
        return move(found, torch.device("cpu"))

    def load_state_dict(self, states: list[list[dict[str, Any]]], rank: int, world: int) -> None:
        """Put back what the processes of a run had: each its own, or the first one all of it."""
        mine = states[rank] if len(states) == world else _merged(states, count=rank == 0)
        saved = move(mine, self.device)
        self.entries = {entry.pop("key"): Entry(**entry) for entry in saved}


def _merged(states: list[list[dict[str, Any]]], count: bool) -> list[dict[str, Any]]:
    """The running values of several processes in one; without `count` their names alone."""
    merged = [{**entry, "total": None, "weight": 0} for entry in states[0]]
    for entry, rows in zip(merged, zip(*states, strict=False), strict=False):
        for row in rows if count else ():
            entry["weight"] += row["weight"]
            both = [total for total in (entry["total"], row["total"]) if total is not None]
            if both:
                add = _REDUCTIONS.get(entry["reduce"], torch.add)
                entry["total"] = both[0] if len(both) == 1 else add(*both)
    return merged


_REDUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sum": torch.add,
    "min": torch.minimum,
    "max": torch.maximum,
}


def _reduction(reduce: str | Callable[..., Any], name: str) -> str:
    text = reduce if isinstance(reduce, str) else getattr(reduce, "__name__", str(reduce))
    text = {"avg": "mean", "amin": "min", "amax": "max"}.get(text, text)
    if text != "mean" and text not in _REDUCTIONS:
        raise unknown("reduce_fx", text, ("mean", *_REDUCTIONS), where=f"log({name!r})")
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
    return {
        name: {"values": {k: getattr(m, k) for k in m._defaults}, "count": m._update_count}
        for name, m in metrics(module)
    }


def load_metric_states(module: nn.Module, states: dict[str, Any], device: torch.device) -> None:
    """Put back what `metric_states` gave."""
    for name, metric in metrics(module):
        if name in states:
            for key, value in states[name]["values"].items():
                setattr(metric, key, move(value, device))
            metric._update_count = states[name]["count"]


def metrics(module: nn.Module) -> list[tuple[str, Any]]:
    """All torchmetrics objects in a module, by name."""
    return [(name, part) for name, part in module.named_modules() if _is_metric(part)]


def by_loader(values: dict[str, float], loaders: int) -> list[dict[str, float]]:
    """One dict a loader; a name without a loader's suffix stands in all."""
    if loaders == 1:
        return [values]
    suffixes = tuple(f"/dataloader_idx_{number}" for number in range(loaders))
    shared = {name: value for name, value in values.items() if not name.endswith(suffixes)}
    own = [{n: v for n, v in values.items() if n.endswith(suffix)} for suffix in suffixes]
    return [shared | found for found in own]


def to_host(values: Iterable[Any]) -> list[float]:
    """Numbers and 0-dim tensors → floats, with one transfer for all tensors."""
    items = list(values)
    tensors = [
        v.detach() if v.ndim == 0 else v.detach().reshape(())
        for v in items
        if isinstance(v, Tensor)
    ]
    if len({tensor.dtype for tensor in tensors}) > 1:
        tensors = [tensor.to(_wide(tensor.device)) for tensor in tensors]
    read = iter(torch.stack(tensors).tolist() if tensors else [])
    return [next(read) if isinstance(v, Tensor) else float(v) for v in items]


def _wide(device: torch.device) -> torch.dtype:
    """float64 keeps an epoch's mean exact to 1e-7; MPS and XLA have none."""
    return torch.float64 if device.type in ("cpu", "cuda") else torch.float32
