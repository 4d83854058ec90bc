"""What networks start with on each kind of device, with reason and source; an option always wins.

`resolve` is a pure function of a recorded description. Rows that were not measured say so once,
when they are used. Classical detectors run on the processor alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from renshu.messages import say
from renshu_tasks.common.device import Device, describe_device, table_key


@dataclass(frozen=True)
class Defaults:
    """Settings for one device.

    Attributes:
        batch_size: windows a step.
        threads: torch's own on a CPU; None leaves them as they are.
        precision: what `--trainer.precision auto` takes.
        reason: why.
        source: "measured: <command>", or after "not measured" the publication that is followed.
        device: its name.
    """

    batch_size: int
    threads: int | None
    precision: str
    reason: str
    source: str
    device: str = ""

    def describe(self) -> str:
        """A line with what is used, and why."""
        return f"defaults for {self.device}: batch {self.batch_size}: {self.reason} ({self.source})"


_TABLE = {
    "cpu": Defaults(128, 1, "32-true",
        "the papers' batch; on layers this small a second thread only waits",
        "not measured; Liu and Paparrizos 2024, TSB-AD, trains with this batch"),
    "t4": Defaults(512, None, "32-true",
        "small layers: larger batches fill the device, half precision gains nothing",
        "not measured; NVIDIA, Deep Learning Performance guide"),
    "a100": Defaults(1024, None, "32-true", "as T4, with more units to fill",
        "not measured; NVIDIA, Deep Learning Performance guide"),
    "h100": Defaults(1024, None, "32-true", "as A100",
        "not measured; NVIDIA, Deep Learning Performance guide"),
    "gpu": Defaults(512, None, "32-true", "a GPU that is not in the table: as T4",
        "not measured; NVIDIA, Deep Learning Performance guide"),
    "v5e": Defaults(1024, None, "32-true", "multiples of 128 fill the matrix unit",
        "not measured; Google Cloud TPU performance guide"),
    "mps": Defaults(256, None, "32-true", "memory is shared with the CPU",
        "not measured; PyTorch, MPS backend"),
}  # fmt: skip


def resolve(device: Device, windows: int) -> Defaults:
    """The table's row for a device; the batch leaves at least 8 steps to an epoch of `windows`.

    Raises ConfigError for an unknown kind of device.
    """
    row = _TABLE[table_key(device)]
    if not row.source.startswith("measured"):
        say(f"the defaults for {device.name} are {row.source}", once=True)
    most = max(windows // 8, 8)
    batch = min(row.batch_size, 1 << (most.bit_length() - 1))
    return Defaults(batch, row.threads, row.precision, row.reason, row.source, device.name)


def precision(accelerator: str = "auto") -> str:
    """The table's precision for the device at hand."""
    return _TABLE[table_key(describe_device(accelerator))].precision
