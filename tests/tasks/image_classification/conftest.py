"""Real pictures in folders: the embedded digits written as PNG files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from renshu_tasks.image_classification.demo import load_digits


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of the user who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def digits() -> tuple:
    """Images uint8 [1797, 1, 8, 8] and labels "0" to "9"."""
    return load_digits()


@pytest.fixture
def write_digits(digits: tuple) -> Callable[..., Path]:
    """`write_digits(folder, first, last)` writes these digits as folder/<label>/<row>.png."""
    images, labels = digits

    def write(folder: Path, first: int = 0, last: int = 100) -> Path:
        for row in range(first, last):
            file = folder / labels[row] / f"{row:04d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[row, 0]).save(file)
        return folder

    return write
