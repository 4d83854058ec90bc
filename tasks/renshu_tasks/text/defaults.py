"""What to start with on each kind of device, with reason and source; an option always wins.

`resolve` is a pure function of a recorded description, so it is tested for devices that are not
at hand. Rows that were not measured say so once, when they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from renshu.messages import say
from renshu_tasks.common.device import Device, describe_device, table_key, tell_precision


@dataclass(frozen=True)
class Defaults:
    """Settings for one device.

    `batch_size` is in texts; `num_workers` the most that is useful, the cores at hand may allow
    fewer; `precision` is what `--trainer.precision auto` takes. `source` is "measured: <command>"
    or, after "not measured", the publication that the row follows.
    """

    batch_size: int
    precision: str
    num_workers: int
    compile: bool
    reason: str
    source: str


_TABLE = {
    "cpu": Defaults(32, "32-true", 0, False,
        "bfloat16 was slower than float32 without AMX, and compiling took longer than it spared;"
        " texts are read from memory-mapped files, so a worker would only cost",
        "measured: python benchmarks/text.py"),
    "t4": Defaults(32, "16-mixed", 2, False,
        "no bfloat16 before Ampere", "not measured; NVIDIA, Mixed Precision Training guide"),
    "a100": Defaults(64, "bf16-mixed", 4, False,
        "bfloat16 needs no scaler; lengths differ, so compiling would be repeated",
        "not measured; NVIDIA A100 white paper"),
    "h100": Defaults(128, "bf16-mixed", 4, False,
        "as A100, with twice the memory", "not measured; NVIDIA H100 white paper"),
    "gpu": Defaults(32, "16-mixed", 2, False,
        "a GPU that is not in the table: float16 works since Volta",
        "not measured; PyTorch, Automatic Mixed Precision"),
    "v5e": Defaults(128, "bf16-true", 4, False,
        "multiples of 128 fill the matrix unit", "not measured; Google Cloud TPU guide"),
    "mps": Defaults(32, "32-true", 0, False,
        "autocast on MPS is incomplete", "not measured; PyTorch, MPS backend"),
}  # fmt: skip


def resolve(device: Device, texts: int) -> Defaults:
    """The table's row for a device; the batch shrinks so that an epoch has at least 16 steps.

    Raises ConfigError for an unknown kind of device.
    """
    row = _TABLE[table_key(device)]
    if not row.source.startswith("measured"):
        say(f"the defaults for {device.name} are {row.source}", once=True)
    batch = min(row.batch_size, max(texts // 16, 8))
    return Defaults(
        batch_size=1 << (batch.bit_length() - 1),
        precision=row.precision,
        num_workers=min(row.num_workers, max(device.cores - 1, 0)),
        compile=row.compile,
        reason=row.reason,
        source=row.source,
    )


def precision(accelerator: str = "auto") -> str:
    """The table's precision for the device at hand; what is not plain float32 is said."""
    device = describe_device(accelerator)
    return tell_precision(device, _TABLE[table_key(device)].precision)
