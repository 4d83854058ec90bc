"""Defaults by device, from recorded descriptions of devices that are not at hand."""

from __future__ import annotations

import pytest

from renshu.errors import ConfigError
from renshu_tasks.segmentation.defaults import Device, free_memory, resolve

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
