"""Defaults for recorded devices; those that were not measured say so."""

from __future__ import annotations

import pytest

from renshu.errors import ConfigError
from renshu_tasks.anomaly.defaults import Device, describe_device, precision, resolve

CPU = Device("cpu", "CPU")


@pytest.mark.parametrize(
    ("device", "batch"),
    [
        (CPU, 128),
        (Device("cuda", "Tesla T4"), 512),
        (Device("cuda", "NVIDIA A100-SXM4-40GB"), 1024),
        (Device("cuda", "NVIDIA H100 PCIe"), 1024),
        (Device("cuda", "NVIDIA GeForce RTX 4090"), 512),
        (Device("tpu", "v5e"), 1024),
        (Device("mps", "Apple GPU"), 256),
    ],
)
def test_each_device_has_a_row(device, batch):
    found = resolve(device, windows=100_000)
    assert found.batch_size == batch and found.reason and found.precision == "32-true"
    assert found.source.startswith("not measured; ")


@pytest.mark.parametrize(("windows", "batch"), [(10, 8), (100, 8), (500, 32), (2000, 128)])
def test_a_short_series_leaves_steps_to_an_epoch(windows, batch):
    assert resolve(CPU, windows).batch_size == batch


def test_the_row_says_why_and_whether_it_was_measured(capsys):
    assert "batch 128" in resolve(CPU, 10_000).describe()
    resolve(Device("cuda", "Tesla T4 of a test"), 10_000)
    assert "not measured" in capsys.readouterr().err


def test_unknown_devices_are_refused():
    with pytest.raises(ConfigError, match="no defaults for 'npu'"):
        resolve(Device("npu", "x"), 1000)  # type: ignore[arg-type]


def test_the_processor_is_found():
    assert describe_device("cpu").kind == "cpu" and precision("cpu") == "32-true"
