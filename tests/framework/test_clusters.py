"""The place of a process, read from recorded environments."""

from __future__ import annotations

import pytest

from renshu.clusters import Place, first_host, place

TORCHRUN = {
    "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.7",
    "MASTER_PORT": "41321", "GROUP_RANK": "1", "LOCAL_WORLD_SIZE": "2",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train.sh", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
    "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "gpu[07-09,12]", "SLURM_STEP_NODELIST": "gpu[08-09]",
    "SLURM_NNODES": "2", "SLURM_STEP_ID": "0",
}  # fmt: skip


# capabilities G4 (the seam)
def test_torchrun() -> None:
    assert place(TORCHRUN) == Place(3, 1, 4, "10.0.0.7", 41321)


def test_torchrun_inside_a_slurm_job_comes_first() -> None:
    assert place(SRUN | TORCHRUN) == place(TORCHRUN)


def test_srun() -> None:
    assert place(SRUN) == Place(5, 1, 8, "gpu08", 15000 + 4242)


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_an_interactive_shell_in_a_job_stands_alone(name: str) -> None:
    assert place(SRUN | {"SLURM_JOB_NAME": name}) is None


def test_no_launcher() -> None:
    assert place({"PATH": "/bin", "SLURM_JOB_ID": "1"}) is None


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-09,12],cpu1", "gpu07"),
        ("node3", "node3"),
        ("a1,a2", "a1"),
        ("rack1-[001-010]-ib", "rack1-001-ib"),
    ],
)
def test_the_first_host_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first
