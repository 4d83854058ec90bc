"""What to start with on each kind of device, with reason and source; an option always wins.

`resolve` is a pure function of a recorded description, so it is tested for devices that are not
at hand. Rows that were not measured say so once, when they are used.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from renshu.messages import say
from renshu_tasks.common import device
from renshu_tasks.common.device import Device, table_key, tell_precision


@dataclass(frozen=True)
class Defaults:
    """Settings for one device.

    Attributes:
        patch_voxels: largest patch; the memory may allow less.
        batch_size: patches a batch.
        width: channels of the finest level.
        fold: voxels along an axis that become channels before it.
        share: of the free memory that a training step may use.
        precision: what `--trainer.precision auto` takes.
        reason, source: why, and where the figures come from.
    """

    patch_voxels: int
    batch_size: int
    width: int
    fold: int
    share: float
    precision: str
    reason: str
    source: str


_NNUNET = "not measured; Isensee et al., nnU-Net Revisited, MICCAI 2024"
_TABLE = {
    "cpu": Defaults(48**3, 2, 24, 2, 0.4, "32-true",
        "a step of a larger patch or a wider network takes seconds on a processor",
        "not measured; Isensee et al., nnU-Net, Nature Methods 2021"),
    "t4": Defaults(128**3, 2, 32, 1, 0.8, "16-mixed",
        "no bfloat16 before Ampere; 16 GB hold two patches of 128³", _NNUNET),
    "a100": Defaults(160**3, 2, 32, 1, 0.8, "bf16-mixed",
        "bfloat16 needs no scaler; 40 GB hold two patches of 160³", _NNUNET),
    "h100": Defaults(192**3, 2, 32, 1, 0.8, "bf16-mixed", "as A100, with 80 GB", _NNUNET),
    "gpu": Defaults(128**3, 2, 32, 1, 0.8, "16-mixed",
        "a GPU that is not in the table: float16 works since Volta", _NNUNET),
    "v5e": Defaults(128**3, 2, 32, 1, 0.8, "bf16-true",
        "multiples of 128 fill the matrix unit", "not measured; Google Cloud TPU guide"),
    "mps": Defaults(64**3, 2, 32, 2, 0.4, "32-true",
        "memory is shared with the CPU; autocast on MPS is incomplete",
        "not measured; PyTorch, MPS backend"),
}  # fmt: skip


def resolve(device: Device) -> Defaults:
    """The table's row for a device. Raises ConfigError for an unknown kind of device."""
    found = _TABLE[table_key(device)]
    if not found.source.startswith("measured"):
        say(f"the defaults for {device.name} are {found.source}", once=True)
    return found


def precision(accelerator: str = "auto") -> str:
    """The table's precision for the device at hand; what is not plain float32 is said."""
    device = describe_device(accelerator)
    return tell_precision(device, _TABLE[table_key(device)].precision)


def describe_device(accelerator: str = "auto") -> Device:
    """The device at hand, with the memory that is free there now."""
    import torch

    found = device.describe_device(accelerator)
    memory = torch.cuda.mem_get_info()[0] if found.kind == "cuda" else free_memory()
    return replace(found, memory=memory)


def free_memory() -> int:
    """Bytes of the machine's memory that a process may take now, and its group's limit allows."""
    pages = "SC_AVPHYS_PAGES"
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages) if pages in os.sysconf_names else 2**32
    try:
        meminfo = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = int(dict(line.split(":") for line in meminfo)["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        return found
    allowed = _allowed_to_group(Path("/sys/fs/cgroup"))
    return found if allowed is None else min(found, allowed)


def _allowed_to_group(group: Path) -> int | None:
    """Bytes below the limit of a control group (v2); None without one.

    The files that were read last count as used there, though the kernel drops them when memory is
    asked for, so they are added back.
    """
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
        cached = int(dict(line.split() for line in lines)["inactive_file"])
    except (OSError, KeyError, ValueError):  # no such group, or "max"
        return None
    return max(0, limit - used + cached)
