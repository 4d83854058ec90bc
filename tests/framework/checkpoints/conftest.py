"""A state to save, and a disk that is not waited for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from renshu.checkpoints import snapshot, write

FILES = ("model.safetensors", "state.safetensors", "state.json", "manifest.json")


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is written, not of when it is safe."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def make_state(step: int = 1) -> dict[str, Any]:
    """A small state with a tied and a transposed weight, int keys, and numbers that tell `step`."""
    weight = torch.full((4, 3), float(step))
    return {
        "model": {
            "embed.weight": weight,
            "head.weight": weight,
            "linear.weight": torch.arange(6.0).reshape(2, 3).t() + step,
            "norm.scale": torch.tensor([1.5, step], dtype=torch.bfloat16),
        },
        "optimizer": {"state": {0: {"exp_avg": torch.rand(4, 3), "step": torch.tensor(step)}}},
        "progress": {"step": step, "best": float("inf")},
        "history": (1, 2, b"\x00\xff"),
    }


@pytest.fixture
def state() -> dict[str, Any]:
    """`make_state(1)`."""
    return make_state()


@pytest.fixture
def saved(tmp_path: Path, state: dict[str, Any], no_fsync: None) -> Path:
    """A checkpoint of `state` in an otherwise empty folder."""
    return write(snapshot(state, step=1, batches=4), tmp_path / "runs" / "step=000001")
