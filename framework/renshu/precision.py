"""Precision: in which dtype the model, its forward pass and its optimiser step run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from renshu.errors import ConfigError, unknown
from renshu.options import PRECISIONS

_DTYPES = {"bf16": torch.bfloat16, "16": torch.float16, "32": torch.float32, "64": torch.float64}


def precision_name(value: str | int) -> str:
    """The full name of a precision given by Lightning's full or short name."""
    names = {short: name for name, shorts in PRECISIONS.items() for short in (name, *shorts)}
    text = str(value)
    if text not in names:
        raise unknown("precision", text, PRECISIONS)
    return names[text]


class Precision:
    """Decided once from the name; the loops ask it for what differs between precisions.

    Attributes:
        scaler: the gradient scaler of 16-mixed, else None.
        casts: whether model and batches change their dtype.
    """

    def __init__(self, name: str | int, device: torch.device):
        self.name, self.device = precision_name(name), device
        bits, _, kind = self.name.partition("-")
        self.dtype = _DTYPES[bits]
        self.casts = kind == "true" and bits != "32"
        self.scaler: Any = torch.amp.GradScaler(device.type) if self.name == "16-mixed" else None
        self._skipped = True
        if bits == "64" and device.type in ("mps", "xla"):
            raise ConfigError(f"{device.type} has no 64-bit numbers", where="precision=64-true")
        if bits == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
            others = 'precision="16-mixed" or "32-true"'
            raise ConfigError("this GPU has no bfloat16", where=f"precision={name}", mend=others)

    def convert_module(self, module: nn.Module) -> None:
        """Bring the parameters and buffers into the dtype of a "true" precision, in place."""
        if self.casts:
            module.to(dtype=self.dtype)

    def forward(self) -> AbstractContextManager[Any] | None:
        """The context of every step; None when it needs none."""
        if self.name.endswith("-mixed"):
            return torch.autocast(self.device.type, dtype=self.dtype)
        return _DefaultDtype(self.dtype) if self.casts else None

    # --- with the scaler

    def watch(self, optimizer: Optimizer) -> None:
        """Let `step` know whether the scaler really called the optimiser."""

        def stepped(*_: Any) -> None:
            self._skipped = False

        optimizer.register_step_post_hook(stepped)

    def step(self, optimizer: Optimizer) -> bool:
        """Scaler's step; False when it left the update out because of infinite gradients."""
        self._skipped = True
        self.scaler.step(optimizer)
        return not self._skipped

    def state_dict(self) -> dict[str, Any]:
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler is not None and state:
            # The scaler keeps tensors that it makes when first used.
            self.scaler.scale(torch.zeros((), device=self.device))
            self.scaler.load_state_dict(state)
            self.scaler._scale.fill_(state["scale"])
            self.scaler._growth_tracker.fill_(state["_growth_tracker"])


class _DefaultDtype:
    """torch's default dtype for the length of a block; unlike a generator's, usable again."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = self.before = dtype

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(self.before)
