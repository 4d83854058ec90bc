"""Data parallel training: a process for each device, the whole model in each, gradients averaged.

torch's DistributedDataParallel averages the gradients (Li et al., PVLDB 2020), torch.distributed
brings the values together, its elastic agent starts the processes.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from renshu import messages
from renshu.clusters import Place
from renshu.errors import ConfigError, RunError
from renshu.strategies.single import SingleDevice


class DDP(SingleDevice):
    """One process of several; see `SingleDevice` for the interface.

    Args:
        place: this process among the others.
        device: where its model lives.
        find_unused: look in each step for parameters that it has not used.
    """

    def __init__(self, place: Place, device: torch.device, find_unused: bool = False):
        super().__init__(device)
        self.rank, self.local_rank, self.world = place.rank, place.local_rank, place.world
        self.find_unused = find_unused
        self._steps = 0
        messages.silent = self.rank > 0
        if not dist.is_initialized():
            place.export()
            if device.type == "cuda":
                torch.cuda.set_device(device)
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
            atexit.register(_leave)

    def step(self, module: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return method
        ids = [self.device.index] if self.device.type == "cuda" else None
        self._steps = 0
        return DistributedDataParallel(
            _Step(module, method), device_ids=ids, find_unused_parameters=self.find_unused
        )

    def place(self, module: nn.Module) -> None:
        """To the device, and the first process's weights to all."""
        super().place(module)
        for tensor in chain(module.parameters(), module.buffers()):
            dist.broadcast(tensor.detach(), 0)

    def average(self, tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= self.world

    def synchronise(self, step: Callable[..., Any], now: bool) -> None:
        if isinstance(step, DistributedDataParallel):
            if self._steps == 1 and not self.find_unused:
                _refuse_unused(step.module.module)
            self._steps += 1
            step.require_backward_grad_sync = now

    def gather(self, value: Any, what: str) -> list[Any]:
        if self.broken:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, (what, value))
        for rank, (other, _) in enumerate(found):
            if other != found[0][0]:
                said = f"process {rank} is at {other}, process 0 at {found[0][0]}"
                mend = (
                    "saving, logging and stopping belong in all processes, not in a branch of one"
                )
                raise RunError(said, mend=mend)
        return [value for _, value in found]

    def sum(self, number: Any) -> Any:
        total = torch.as_tensor(number, device=self.device).clone()
        dist.all_reduce(total)
        return total


def _leave() -> None:
    """Ends the group's threads while there still is an interpreter; one that outlives it aborts.

    A group ends with the last wrapped step that holds it, and those stand in reference cycles.
    """
    dist.destroy_process_group()
    gc.collect()


def _refuse_unused(module: nn.Module) -> None:
    """After the first backward pass: those it did not reach would keep the others waiting."""
    trained = [(name, p.grad) for name, p in module.named_parameters() if p.requires_grad]
    unused = [name for name, gradient in trained if gradient is None]
    if 0 < len(unused) < len(trained):
        raise ConfigError(
            f"training_step did not use {', '.join(unused[:5])}" + " …" * (len(unused) > 5),
            where="the first step",
            allowed="a loss that depends on every parameter with requires_grad",
            mend='freeze them, or Trainer(strategy="ddp_find_unused_parameters_true"), slower',
        )


class _Step(nn.Module):
    """A module's training_step as a forward, which is what DistributedDataParallel wraps."""

    def __init__(self, module: nn.Module, method: Callable[..., Any]):
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *arguments: Any) -> Any:
        return self.method(*arguments)


def start_again(processes: int) -> None:
    """Run this program once more in so many processes, and end with their exit code.

    torchrun's agent starts them, passes signals on, and ends all when one fails.

    Raises:
        ConfigError: there is no program that could be started, as in a notebook.
        SystemExit: always, when they have ended.
    """
    if not hasattr(sys.modules["__main__"], "__file__") and "-m" not in sys.orig_argv:
        said = f"devices={processes} starts this program again, and a notebook is none"
        raise ConfigError(said, mend="write it to a file: python train.py")
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        1, 1, processes, run_id="renshu", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0,
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)(*sys.orig_argv[1:])
    except ChildFailedError as error:
        failures = sorted(error.failures.values(), key=lambda failure: failure.timestamp)
        # Below 0 are those that the agent ended when another had failed.
        raise SystemExit(next((f.exitcode for f in failures if f.exitcode > 0), 1)) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    raise SystemExit(0)
