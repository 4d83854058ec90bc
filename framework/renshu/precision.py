"""Precision: in which dtype the model, its forward pass and its optimiser step run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from renshu.data import cast
from renshu.errors import ConfigError, near
from renshu.options import PRECISIONS


def precision_name(value: str | int) -> str:
    """The full name of a precision given by Lightning's full or short name."""
    text = str(value)
    for name, short in PRECISIONS.items():
        if text == name or text in short:
            return name
    names = [*PRECISIONS, *(s for short in PRECISIONS.values() for s in short)]
    raise ConfigError(
        f"there is no precision {text!r}",
        where="precision",
        allowed=", ".join(PRECISIONS) + "; short: 32, bf16, 16, 64",
        mend=near(text, names),
    )


class Precision:
    """Decided once from the name; the loops ask it for what differs between precisions.

    Attributes:
        scaler: the gradient scaler of 16-mixed, else None.
        autocasts: whether the forward pass runs under autocast.
    """

    def __init__(self, name: str | int, device: torch.device):
        self.name = precision_name(name)
        self.device = device
        self.autocasts = self.name.endswith("-mixed")
        self.dtype = {"bf16": torch.bfloat16, "16": torch.float16, "64": torch.float64}.get(
            self.name.split("-")[0], torch.float32
        )
        self.scaler: Any = None
        if self.name == "16-mixed":
            self.scaler = torch.amp.GradScaler(device.type)
        self._skipped = True
        _check_device(self.name, device)

    @property
    def casts(self) -> bool:
        """Whether model and batches change their dtype."""
        return self.name in ("bf16-true", "64-true")

    def convert_module(self, module: nn.Module) -> None:
        """Bring the parameters and buffers into the dtype of a "true" precision, in place."""
        if self.casts:
            module.to(dtype=self.dtype)

    def convert_batch(self, batch: Any) -> Any:
        """Floating point tensors of a batch in the dtype of a "true" precision."""
        return cast(batch, self.dtype)

    def forward(self) -> AbstractContextManager[Any]:
        """The context of every step."""
        if self.autocasts:
            return torch.autocast(self.device.type, dtype=self.dtype)
        return _DefaultDtype(self.dtype) if self.casts else nullcontext()

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
        self.dtype, self.before = dtype, dtype

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *error: object) -> None:
        torch.set_default_dtype(self.before)


def _check_device(name: str, device: torch.device) -> None:
    if name == "64-true" and device.type in ("mps", "xla"):
        raise ConfigError(f"{device.type} has no 64-bit numbers", where="precision=64-true")
    if name.startswith("bf16") and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(
            "this GPU has no bfloat16",
            where=f"precision={name}",
            mend='precision="16-mixed" or "32-true"',
        )
