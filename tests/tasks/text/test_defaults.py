"""What is chosen for recorded devices."""

from __future__ import annotations

import pytest

from renshu.errors import ConfigError
from renshu_tasks.text.defaults import Device, resolve

RECORDED = {
    "cpu": (Device("cpu", "CPU", cores=2), 32, "32-true", 0),
    "t4": (Device("cuda", "Tesla T4", cores=8), 32, "16-mixed", 2),
    "a100": (Device("cuda", "NVIDIA A100-SXM4-40GB", cores=12), 64, "bf16-mixed", 4),
    "h100": (Device("cuda", "NVIDIA H100 80GB HBM3", cores=26), 128, "bf16-mixed", 4),
    "v5e": (Device("tpu", "v5e", cores=8), 128, "bf16-true", 4),
    "another gpu": (Device("cuda", "NVIDIA GeForce RTX 3060", cores=2), 32, "16-mixed", 1),
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_devices(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    device, batch, precision, workers = RECORDED[name]
    found = resolve(device, 100_000)
    assert (found.batch_size, found.precision, found.num_workers) == (batch, precision, workers)
    assert found.reason
    said = capsys.readouterr().err
    assert ("not measured" in said) == (name != "cpu")


def test_few_texts_get_smaller_batches() -> None:
    """At least 16 steps an epoch, down to 8 texts a batch."""
    cpu = RECORDED["cpu"][0]
    assert [resolve(cpu, n).batch_size for n in (10, 200, 300, 1000)] == [8, 8, 16, 32]


def test_an_unknown_kind_of_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="no defaults"):
        resolve(Device("abacus", "wood", cores=1), 10)  # type: ignore[arg-type]
