"""Series with what is known of them, and a table of one's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Wave = Callable[..., np.ndarray]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real series that are no part of the repository."""
    default = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    folder = Path(os.environ.get("RENSHU_SHARED_DATA", default))
    if not (folder / "nab").is_dir():
        pytest.skip(f"no shared data in {folder}; RENSHU_SHARED_DATA names another place")
    return folder


@pytest.fixture(scope="session")
def wave() -> Wave:
    """`wave(points, channels)`: noisy sines, float64 [points, channels], of different phase."""

    def make(points: int, channels: int = 1, period: int = 25, seed: int = 0) -> np.ndarray:
        noise = 0.1 * np.random.default_rng(seed).normal(size=(points, channels))
        phase = np.arange(points)[:, None] * 2 * np.pi / period + np.arange(channels)
        return np.sin(phase) + noise

    return make


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[..., Path]:
    """`write_csv(columns, name)` writes named columns as a table."""

    def write(columns: dict[str, object], name: str = "own.csv") -> Path:
        import pandas as pd

        file = tmp_path / name
        pd.DataFrame(columns).to_csv(file, index=False)
        return file

    return write
