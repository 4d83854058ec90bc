"""A table of a module's parts and their parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from renshu.callbacks.callback import Callback
from renshu.data import move

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


@dataclass(eq=False)
class ModelSummary(Callback):
    """Prints the table before training, and FLOPs where the module has an `example_input_array`.

    Args:
        max_depth: how deep to list parts; 1 is the module's own children, -1 all, 0 totals alone.
    """

    max_depth: int = 1

    def on_fit_start(self, trainer: Trainer, module: Module) -> None:
        text = summarize(module, self.max_depth)
        if module.example_input_array is not None:
            text += f", {_flops(module):,} FLOPs a forward pass of example_input_array"
        module.print(text)


def summarize(module: nn.Module, max_depth: int = 1) -> str:
    """The table as text: name, type, parameters, mode; then totals.

    A parameter that several parts share counts in each of them and once in the totals. Parts whose
    parameters get their shapes only at the first batch count as 0 and are marked "lazy".
    """
    rows = [("name", "type", "parameters", "mode")]
    for name, part in module.named_modules():
        if name and (max_depth == -1 or name.count(".") < max_depth):
            lazy = " lazy" if any(is_lazy(p) for p in part.parameters()) else ""
            mode = "train" if part.training else "eval"
            rows.append((name, type(part).__name__, f"{_count(part.parameters()):,}{lazy}", mode))
    wide, kinds, counts, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{n:{wide}}  {kind:{kinds}}  {count:>{counts}}  {m}" for n, kind, count, m in rows]
    parameters = list(module.parameters())
    trained = _count(p for p in parameters if p.requires_grad)
    size = sum(p.numel() * p.element_size() for p in parameters if not is_lazy(p)) / 1e6
    total = f"{_count(parameters):,} parameters, {trained:,} of them trained, {size:,.3f} MB"
    return "\n".join([*(lines if len(lines) > 1 else ()), total])


def _flops(module: Module) -> int:
    """Floating-point operations for the example, counted without touching module or generators."""
    from renshu.utilities import measure_flops

    example = module.example_input_array
    given, named = example if isinstance(example, tuple) else (example,), {}
    if isinstance(example, dict):
        given, named = (), example
    given, named = move((given, named), module.device)
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    with torch.no_grad():
        flops = measure_flops(module, lambda: module(*given, **named))
    for part, training in modes:
        part.training = training
    return flops


def _count(parameters: Iterable[Tensor]) -> int:
    return sum(0 if is_lazy(p) else p.numel() for p in parameters)


RichModelSummary = ModelSummary
"""Lightning's name."""
