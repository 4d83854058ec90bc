"""How several devices work together. Each strategy is the same small interface."""

from __future__ import annotations

import os

import torch

from renshu.clusters import place
from renshu.errors import ConfigError, unknown
from renshu.strategies.single import SingleDevice

__all__ = ["SingleDevice", "make_strategy"]

NAMES = ("auto", "single_device", "ddp", "ddp_find_unused_parameters_true")


def make_strategy(name: str, devices: list[torch.device], num_nodes: int) -> SingleDevice:
    """The strategy for the option `strategy`; ConfigError if it is unknown or cannot be had.

    Several devices without torchrun or SLURM start this program again, once for each of them; then
    it ends with SystemExit when they have.
    """
    if name not in NAMES:
        raise unknown("strategy", name, NAMES)
    found = place(os.environ)
    if found is None and num_nodes > 1:
        mend = f"torchrun --nnodes {num_nodes} …, or srun in a SLURM job, start its processes"
        raise ConfigError(f"num_nodes={num_nodes} needs a launcher", mend=mend)
    if name == "single_device" or (name == "auto" and len(devices) == 1 and found is None):
        return SingleDevice(devices[0])
    from renshu.strategies.ddp import DDP, start_again

    if found is None and len(devices) > 1:
        start_again(len(devices))
    if found is not None and found.world == 1 < len(devices):
        said = f"devices={len(devices)}, and the launcher started one process"
        raise ConfigError(said, mend="let it start one for each device, or none: python train.py")
    if found is None or found.world == 1:
        return SingleDevice(devices[0])
    here = devices[found.local_rank % len(devices)]
    if len(devices) == 1 and here.type == "cuda":
        here = torch.device("cuda", found.local_rank)
    return DDP(found, here, find_unused=name.endswith("_true"))
