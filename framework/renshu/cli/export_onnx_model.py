"""Runs model.onnx with onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime


def load(folder: Path) -> Callable[..., dict[str, np.ndarray]]:
    """The model as a function from named arrays to named arrays."""
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray], texts: Sequence[str] = ()) -> dict[str, np.ndarray]:
        return dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))

    return run
