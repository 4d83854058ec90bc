"""Use of processor and memory as logged values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError

if TYPE_CHECKING:
    from renshu.module import Module
    from renshu.trainer import Trainer


class DeviceStatsMonitor(Callback):
    """Sends figures of the device to the loggers at their interval and after each validation.

    Names are `DeviceStatsMonitor.<hook>/<figure>`, with the hook after which they were read:
    on_train_batch_end or on_validation_end. Of CUDA they are all of `torch.cuda.memory_stats`
    (bytes and counts); of the host `cpu_percent`, `cpu_vm_percent` (memory) and `cpu_swap_percent`,
    for the whole machine. Nothing here waits for the device.

    Args:
        cpu_stats: the host's figures: None where it computes itself, True always, False never.

    Raises:
        ConfigError: there is no logger, or psutil is not installed and the host is asked for.
    """

    def __init__(self, cpu_stats: bool | None = None) -> None:
        self.cpu_stats = cpu_stats

    def setup(self, trainer: Trainer, module: Module, stage: str) -> None:
        from renshu.planning import log_interval

        self._fitting = stage == "fit"
        if not self._fitting:
            return
        silent = trainer.options.fast_dev_run or not trainer.is_global_zero
        if not trainer.loggers and not silent:
            raise ConfigError("DeviceStatsMonitor needs a logger", mend="Trainer(logger=True)")
        self.interval = log_interval(trainer.options)
        self._device = trainer.strategy.device
        host = self._device.type != "cuda" if self.cpu_stats is None else self.cpu_stats
        try:
            import psutil
        except ModuleNotFoundError:
            if host:
                said = "DeviceStatsMonitor reads the host's figures with psutil, which is missing"
                mend = "pip install psutil, or DeviceStatsMonitor(cpu_stats=False)"
                raise ConfigError(said, mend=mend) from None
            return
        self._host = psutil if host else None
        psutil.cpu_percent()  # the first call only begins to measure

    _host = None

    def on_interval(self, trainer: Trainer, module: Module) -> None:
        self._log(trainer, "on_train_batch_end")

    def on_validation_end(self, trainer: Trainer, module: Module) -> None:
        if self._fitting and not trainer.sanity_checking:
            self._log(trainer, "on_validation_end")

    def _log(self, trainer: Trainer, hook: str) -> None:
        found: dict[str, float] = {}
        if self._device.type == "cuda":
            found |= torch.cuda.memory_stats(self._device)
        if self._host is not None:
            found["cpu_percent"] = self._host.cpu_percent()
            found["cpu_vm_percent"] = self._host.virtual_memory().percent
            found["cpu_swap_percent"] = self._host.swap_memory().percent
        trainer.log_metrics({f"DeviceStatsMonitor.{hook}/{k}": v for k, v in found.items()})
