"""The table of defaults, against recorded descriptions of devices."""

from __future__ import annotations

from typing import Literal

import pytest

from renshu import messages
from renshu.errors import ConfigError
from renshu_tasks.common.device import Device, describe_device
from renshu_tasks.image_classification import defaults
from renshu_tasks.image_classification.defaults import _TABLE, resolve
from renshu_tasks.image_classification.options import (
    DataOptions,
    ImageClassificationOptions,
    TrainingOptions,
)

GIB = 2**30
CPU = Device("cpu", "CPU", 8 * GIB, 2)
T4 = Device("cuda", "Tesla T4", 15 * GIB, 4)
A100 = Device("cuda", "NVIDIA A100-SXM4-40GB", 40 * GIB, 12)
H100 = Device("cuda", "NVIDIA H100 80GB HBM3", 80 * GIB, 26)
V5E = Device("tpu", "TPU v5 lite", 16 * GIB, 24)
MPS = Device("mps", "Apple GPU", 16 * GIB, 8)
OTHER = Device("cuda", "NVIDIA GeForce RTX 4090", 24 * GIB, 16)
DEVICES = [CPU, T4, A100, H100, V5E, MPS, OTHER]
FAMILIES: list[Literal["small", "large"]] = ["small", "large"]


@pytest.mark.parametrize(
    ("device", "batch", "precision"),
    [
        (CPU, 32, "32-true"),
        (T4, 64, "16-mixed"),
        (A100, 256, "bf16-mixed"),
        (H100, 512, "bf16-mixed"),
        (V5E, 128, "bf16-true"),
        (MPS, 32, "32-true"),
        (OTHER, 32, "16-mixed"),
    ],
)
def test_each_recorded_device_finds_its_row(device: Device, batch: int, precision: str):
    found = resolve(device, "large", 224, 10**6)
    assert (found.batch_size, found.precision) == (batch, precision)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size", [8, 32, 224, 1024])
@pytest.mark.parametrize("samples", [10, 1221, 10**6])
def test_batches_are_powers_of_two_that_fit(device: Device, family, size: int, samples: int):
    found = resolve(device, family, size, samples)
    assert found.batch_size & (found.batch_size - 1) == 0
    assert 1 <= found.batch_size <= max(samples / 16, 8)
    assert found.num_workers < device.cores
    pixels = found.batch_size * size**2
    assert pixels <= resolve(device, family, 64 if family == "small" else 224, 10**6).batch_size * (
        max(size, 64 if family == "small" else 224) ** 2
    )


def test_the_same_description_gives_the_same_defaults():
    assert resolve(A100, "large", 224, 50_000) == resolve(A100, "large", 224, 50_000)


def test_every_row_has_its_reason_and_source():
    for key, (*_, reason, source) in _TABLE.items():
        assert len(reason) > 20, key
        assert source.startswith(("measured: python ", "not measured; ")), key


def test_rows_that_were_not_measured_say_so_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(messages, "_said", set())
    for _ in range(3):
        resolve(H100, "large", 224, 10**6)
    said = capsys.readouterr().err
    assert said.count("H100") == 2 and said.count("not measured") == 1  # its name and its source


def test_a_line_says_which_defaults_are_used_and_why():
    found = resolve(CPU, "small", 8, 1221)
    line = found.describe(ImageClassificationOptions(), 0)
    assert line.startswith("defaults for CPU: batch 64, channels-last, 1 thread: small batches")
    assert line.endswith(f"({found.source})")


def test_what_an_option_decides_is_no_default():
    options = ImageClassificationOptions(
        data=DataOptions(batch_size=7, num_workers=3),
        training=TrainingOptions(channels_last=False, threads=2),
    )
    assert resolve(CPU, "small", 8, 1221).describe(options, 3) == ""
    some = ImageClassificationOptions(data=DataOptions(batch_size=7))
    assert (
        resolve(CPU, "large", 224, 1221)
        .describe(some, 1)
        .startswith("defaults for CPU: 1 worker, channels-last: ")
    )


def test_compilation_is_used_and_named_where_the_table_has_it():
    options = ImageClassificationOptions()
    t4, a100 = (resolve(device, "large", 224, 10**6).describe(options, 4) for device in (T4, A100))
    assert "torch.compile" in a100 and "torch.compile" not in t4
    assert not resolve(A100, "small", 32, 10**6).compile


@pytest.mark.parametrize(
    ("device", "wanted"), [(A100, "bf16-mixed"), (T4, "16-mixed"), (CPU, "32-true")]
)
def test_precision_auto_is_what_the_table_says(
    device: Device,
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(defaults, "describe_device", lambda accelerator: device)
    assert defaults.precision("auto") == wanted
    assert (f"precision for {device.name}: {wanted}" in capsys.readouterr().err) == (device != CPU)


def test_an_unknown_kind_of_device_is_refused():
    with pytest.raises(ConfigError, match=r"'npu'(.|\n)*cpu, mps, tpu, cuda"):
        resolve(Device("npu", "x", 1, 1), "small", 8, 100)  # type: ignore[arg-type]


def test_a_name_that_only_contains_a_known_one_is_not_taken_for_it():
    assert resolve(Device("cuda", "Quadro RTX 4000", GIB, 4), "large", 224, 10**6).batch_size == 32


def test_this_machine_is_described():
    device = describe_device("cpu")
    assert device.kind == "cpu" and device.cores >= 1 and device.memory > GIB // 4
