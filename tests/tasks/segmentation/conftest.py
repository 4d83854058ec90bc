"""Small scans on disk, with the anatomy of the MNI152 template where it matters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

nibabel = pytest.importorskip("nibabel", reason="segmentation needs renshu[medical]")
pytest.importorskip("pydicom", reason="segmentation needs renshu[medical]")
pytest.importorskip("monai", reason="segmentation needs renshu[medical]")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the cache of the user who runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """`shared(name)` is a folder of real data; the test is skipped where it is absent."""
    root = Path(__file__).resolve().parents[3].parent / "shared" / "data"

    def find(name: str) -> Path:
        folder = Path(os.environ.get("RENSHU_SHARED_DATA", str(root))) / name
        if not folder.is_dir():
            pytest.skip(f"real data of {folder} are not there")
        return folder

    return find


@pytest.fixture(scope="session")
def scan() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """`scan(number, shape)` is an image and its mask."""
    return make_scan


def make_scan(number: int, shape: tuple[int, ...] = (14, 16, 12)) -> tuple[np.ndarray, np.ndarray]:
    """A ball (1) beside a box (2) in noise, each brighter than what is around: image, mask."""
    random = np.random.default_rng(number)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    centre = np.array([n * 0.35 for n in shape]).reshape(-1, *(1,) * len(shape))
    mask = (np.linalg.norm(grid - centre, axis=0) < 3).astype(np.uint8)
    mask[tuple(slice(int(n * 0.6), int(n * 0.85)) for n in shape)] = 2
    image = mask * 4.0 + random.normal(10, 0.5, shape)
    return image.astype(np.float32), mask


@pytest.fixture
def write_nifti() -> Callable[..., Path]:
    """`write_nifti(file, voxels, affine)` writes a NIfTI file, 1 mm by default."""

    def write(file: Path, voxels: np.ndarray, affine: Any = None) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else np.array(affine))
        nibabel.save(image, file)
        return file

    return write


@pytest.fixture
def write_cases(write_nifti: Callable[..., Path]) -> Callable[..., Path]:
    """`write_cases(folder, count)` writes images/ and labels/ of so many cases."""

    def write(folder: Path, count: int = 6, **arguments: Any) -> Path:
        for number in range(count):
            image, mask = make_scan(number, **arguments)
            write_nifti(folder / "images" / f"p{number}.nii.gz", image)
            write_nifti(folder / "labels" / f"p{number}.nii.gz", mask)
        return folder

    return write
