"""Defaults for recorded devices; those that were not measured say so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from renshu.errors import ConfigError
from renshu_tasks.anomaly import task
from renshu_tasks.anomaly.defaults import Device, describe_device, precision, resolve
from renshu_tasks.anomaly.options import ModelOptions

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


def test_the_default_detector_and_the_demos_network_are_the_best_on_tuning_series():
    """As benchmarks/anomaly_choice.py found; another default needs another run of it."""
    results = Path(__file__).parents[3] / "benchmarks" / "results" / "anomaly_choice.json"
    if not results.is_file():
        pytest.skip("the results of benchmarks are not beside these tests")
    default, network = json.loads(results.read_text(encoding="utf-8"))["rows"]
    assert _best(default) == ModelOptions().name
    demo = task.presets["demo"]
    assert _best(network) == f"{demo['model.name']} with window {demo['model.window']}"


def _best(row: dict[str, Any]) -> str:
    """What was the default when it was measured, or the other that was better."""
    if row["renshu"] >= row["peer"]:
        return row["what"].rpartition(", ")[2]
    return row["peer_version"]


def test_classical_detectors_import_neither_torch_nor_a_compiler():
    """Nothing of CUDA or of a compiler can fail where it is not used."""
    # pains/anomaly.md rows 15, 16, 23
    pytest.importorskip("sklearn", reason='needs pip install "renshu[anomaly]"')
    code = (
        "import sys; import numpy as np;"
        "from renshu_tasks.anomaly.detectors import DETECTORS, NEURAL, make;"
        "found = {name: make(name) for name in DETECTORS if name not in NEURAL};"
        "x = np.sin(np.arange(700.0) / 4)[:, None];"
        "found['matrix_profile'].fit(x).score(x);"
        "print(sorted({'torch', 'numba', 'stumpy', 'jpype'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
