"""Defaults by device, from recorded descriptions of devices that are not at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from renshu.errors import ConfigError
from renshu_tasks.segmentation.defaults import (
    Device,
    _allowed_to_group,
    free_memory,
    resolve,
)

GIB = 2**30


@pytest.mark.parametrize(
    ("kind", "name", "precision", "side"),
    [
        ("cpu", "CPU", "32-true", 48),
        ("cuda", "Tesla T4", "16-mixed", 128),
        ("cuda", "NVIDIA A100-SXM4-40GB", "bf16-mixed", 160),
        ("cuda", "NVIDIA H100 80GB HBM3", "bf16-mixed", 192),
        ("cuda", "Quadro RTX 4000", "16-mixed", 128),
        ("tpu", "v5e", "bf16-true", 128),
        ("mps", "Apple GPU", "32-true", 64),
    ],
)
def test_each_device_has_its_row(kind: str, name: str, precision: str, side: int) -> None:
    found = resolve(Device(kind, name, 16 * GIB, 8))  # type: ignore[arg-type]
    assert (found.precision, found.patch_voxels) == (precision, side**3)
    assert found.reason


def test_an_unmeasured_row_says_so_with_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    resolve(Device("cuda", "NVIDIA H100 of this test", 80 * GIB, 8))
    assert "not measured; Isensee et al." in capsys.readouterr().err


def test_an_unknown_kind_of_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="no defaults for 'ipu'"):
        resolve(Device("ipu", "IPU", GIB, 1))  # type: ignore[arg-type]


def test_free_memory_is_that_of_the_machine_or_its_group() -> None:
    assert 2**20 < free_memory() < 2**50


def test_files_that_were_read_are_no_used_memory_of_a_container(tmp_path: Path) -> None:
    for name, text in (
        ("memory.max", f"{8 * GIB}\n"),
        ("memory.current", f"{8 * GIB}\n"),
        ("memory.stat", f"anon {2 * GIB}\nactive_file {GIB}\ninactive_file {5 * GIB}\n"),
    ):
        (tmp_path / name).write_text(text)
    assert _allowed_to_group(tmp_path) == 5 * GIB
    (tmp_path / "memory.max").write_text("max\n")
    assert _allowed_to_group(tmp_path) is None
    assert _allowed_to_group(tmp_path / "absent") is None
