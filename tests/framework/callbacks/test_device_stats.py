"""DeviceStatsMonitor: figures that psutil gives, at the log interval."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import tiny
from renshu.callbacks import DeviceStatsMonitor
from renshu.errors import ConfigError
from renshu.loggers import Logger

CPU = {"cpu_percent", "cpu_vm_percent", "cpu_swap_percent"}


class Kept(Logger):
    """A logger that keeps what it gets."""

    def __init__(self) -> None:
        self.records: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        if found := {k: v for k, v in metrics.items() if k.startswith("DeviceStats")}:
            self.records.append((step, found))


def fit(tmp_path: Any, *callbacks: Any, **options: Any) -> list[tuple[int, dict[str, float]]]:
    logger = Kept()
    run = tiny.trainer(tmp_path, *callbacks, logger=logger, max_epochs=2, **options)
    run.fit(tiny.Tiny(), tiny.loader(), tiny.loader())
    return logger.records


# capabilities E
def test_the_hosts_figures_are_logged_at_the_interval_and_after_validations(tmp_path: Any) -> None:
    psutil = pytest.importorskip("psutil")
    records = fit(tmp_path, DeviceStatsMonitor(), log_every_n_steps=3)
    found = [(step, {name.partition("/")[0] for name in values}) for step, values in records]
    train, validation = (
        {f"DeviceStatsMonitor.{hook}"} for hook in ("on_train_batch_end", "on_validation_end")
    )
    # 4 batches an epoch; steps are counted from 0.
    assert found == [(2, train), (3, validation), (5, train), (7, validation)]
    for _, values in records:
        assert {name.partition("/")[2] for name in values} == CPU
        assert all(0 <= value <= 100 for value in values.values())
    memory = records[0][1]["DeviceStatsMonitor.on_train_batch_end/cpu_vm_percent"]
    assert memory == pytest.approx(psutil.virtual_memory().percent, abs=25)


def test_cuda_gives_what_its_allocator_counts(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without such a device: the monitor is told that there is one."""
    pytest.importorskip("psutil", reason="needs renshu[monitor]")
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_ooms": 0, "x.peak": 7})

    class OnCuda(DeviceStatsMonitor):
        def setup(self, trainer: Any, module: Any, stage: str) -> None:
            trainer.strategy.device = torch.device("cuda")
            super().setup(trainer, module, stage)
            trainer.strategy.device = torch.device("cpu")

    records = fit(tmp_path, OnCuda(cpu_stats=False), log_every_n_steps=4)
    prefix = "DeviceStatsMonitor.on_train_batch_end/"
    assert {f"{prefix}num_ooms": 0, f"{prefix}x.peak": 7} in [values for _, values in records]
    both = fit(tmp_path / "both", OnCuda(cpu_stats=True), log_every_n_steps=4)
    assert len(both[0][1]) == 2 + len(CPU)


def test_psutil_is_asked_for_by_name(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(ConfigError, match="pip install psutil"):
        fit(tmp_path, DeviceStatsMonitor())
    assert fit(tmp_path / "off", DeviceStatsMonitor(cpu_stats=False)) == []


def test_a_logger_is_needed(tmp_path: Any) -> None:
    run = tiny.trainer(tmp_path, DeviceStatsMonitor(), logger=False)
    with pytest.raises(ConfigError, match="needs a logger"):
        run.fit(tiny.Tiny(), tiny.loader())
