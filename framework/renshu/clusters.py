"""What torchrun, SLURM and others say in the environment about the processes of a job."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """This process among those of its job, and where they meet."""

    rank: int
    local_rank: int
    world: int
    address: str
    port: int

    def export(self) -> None:
        """Say it in torchrun's words, which is what torch.distributed reads."""
        words = {"RANK": self.rank, "LOCAL_RANK": self.local_rank, "WORLD_SIZE": self.world}
        words |= {"MASTER_ADDR": self.address, "MASTER_PORT": self.port}
        os.environ.update({name: str(value) for name, value in words.items()})


def place(environment: Mapping[str, str]) -> Place | None:
    """The place that an environment describes; None for a process that stands alone.

    torchrun (and whatever speaks its words, such as Kubeflow's PyTorchJob) comes first. Of SLURM
    only steps that `srun` started count: in a batch script or shell the job's size says nothing.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        rank = int(environment["RANK"])
        local, world = int(environment.get("LOCAL_RANK", 0)), int(environment["WORLD_SIZE"])
        address = environment.get("MASTER_ADDR", "127.0.0.1")
        return Place(rank, local, world, address, int(environment.get("MASTER_PORT", 29500)))
    shell = environment.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_ID"} <= environment.keys() and not shell:
        rank, world = int(environment["SLURM_PROCID"]), int(environment["SLURM_NTASKS"])
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        # Jobs that share a node must not meet in one port.
        port = 15000 + int(environment["SLURM_JOB_ID"]) % 16000
        address = environment.get("MASTER_ADDR") or first_host(nodes)
        port = int(environment.get("MASTER_PORT", port))
        return Place(rank, int(environment.get("SLURM_LOCALID", 0)), world, address, port)
    return None


def first_host(nodes: str) -> str:
    """The first name in SLURM's list of nodes: `gpu[07-09,12],cpu1` → `gpu07`."""
    first = re.match(r"([^,\[]+)(?:\[(\d+)[^\]]*\])?([^,\[]*)", nodes)
    return "" if first is None else "".join(part or "" for part in first.groups())
