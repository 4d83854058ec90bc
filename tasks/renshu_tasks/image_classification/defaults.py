"""What to start with on each kind of device, with reason and source; an option always wins.

`resolve` is a pure function of a recorded description, so it is tested for devices that are not
at hand. Rows that were not measured say so once, when they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from renshu.messages import say
from renshu_tasks.common.device import Device, describe_device, table_key, tell_precision

if TYPE_CHECKING:
    from renshu_tasks.image_classification.options import ImageClassificationOptions

Family = Literal["small", "large"]
"""Small: pictures up to 64 pixels and the small network. Large: torchvision's networks."""


@dataclass(frozen=True)
class Defaults:
    """Settings for one device.

    `batch_size` is that of the family asked for, for one device; `num_workers` the most that is
    useful, the cores at hand may allow fewer; `threads` are torch's own on a CPU, None leaves them
    as they are. `precision` is what `--trainer.precision auto` takes. `source` is
    "measured: <command>" or, after "not measured", the publication that the row follows.
    """

    batch_size: int
    precision: str
    num_workers: int
    channels_last: bool
    compile: bool
    reason: str
    source: str
    threads: int | None = None
    device: str = ""

    def describe(self, options: ImageClassificationOptions, workers: int) -> str:
        """A line with what is used here of these settings, and why.

        `workers` are those that load. Settings that an option overrides are left out; the line is
        empty when nothing remains.
        """
        data, training = options.data, options.training
        used = []
        if data.batch_size is None:
            used.append(f"batch {self.batch_size}")
        if data.num_workers is None and workers:
            used.append("1 worker" if workers == 1 else f"{workers} workers")
        if training.channels_last is None and self.channels_last:
            used.append("channels-last")
        if training.threads is None and self.threads:
            used.append("1 thread" if self.threads == 1 else f"{self.threads} threads")
        if training.compile is None and self.compile:
            used.append("torch.compile")
        settings = ", ".join(used)
        return (
            f"defaults for {self.device}: {settings}: {self.reason} ({self.source})" if used else ""
        )


# device: (batch of small, batch of large), precision, workers, channels-last, compile (large only),
# reason, source
_Row = tuple[tuple[int, int], str, int, bool, bool, str, str]
_TABLE: dict[str, _Row] = {
    "cpu": ((64, 32), "32-true", 2, True, False,
        "small batches learn faster a pass (Masters and Luschi 2018); oneDNN convolves faster in"
        " channels-last",
        "measured: python benchmarks/devices.py (small network; large: PyTorch's guide)"),
    "t4": ((256, 64), "16-mixed", 4, True, False,
        "no bfloat16 before Ampere; 16 GB hold 64 pictures of ResNet-50 in half precision",
        "not measured; NVIDIA, Mixed Precision Training guide; DeepLearningExamples"),
    "a100": ((512, 256), "bf16-mixed", 8, True, True,
        "bfloat16 needs no scaler; large batches fill the tensor cores, 256 fit in 40 GB",
        "not measured; NVIDIA A100 white paper; DeepLearningExamples, ResNet-50"),
    "h100": ((1024, 512), "bf16-mixed", 12, True, True,
        "as A100, with 80 GB for twice the pictures",
        "not measured; NVIDIA H100 white paper"),
    "gpu": ((256, 32), "16-mixed", 4, True, False,
        "a GPU that is not in the table: float16 works since Volta, 32 pictures fit in 8 GB",
        "not measured; PyTorch, Automatic Mixed Precision"),
    "v5e": ((1024, 128), "bf16-true", 8, False, False,
        "multiples of 128 fill the matrix unit; XLA compiles and lays out by itself",
        "not measured; Google Cloud TPU performance guide"),
    "mps": ((128, 32), "32-true", 2, False, False,
        "memory is shared with the CPU; autocast on MPS is incomplete",
        "not measured; PyTorch, MPS backend"),
}  # fmt: skip


def resolve(device: Device, family: Family, image_size: int, samples: int) -> Defaults:
    """The table's row for a device, fitted to the pictures.

    `image_size` is the longer side in pixels, `samples` the training pictures. The batch shrinks
    with the area of pictures above 224 pixels (above 64 for small), and so that an epoch has at
    least 16 steps; it stays a power of two. Raises ConfigError for an unknown kind of device.
    """
    batches, precision, workers, channels_last, compiled, reason, source = _TABLE[table_key(device)]
    small = family == "small"
    area = ((64 if small else 224) / max(image_size, 1)) ** 2
    batch = min(batches[0 if small else 1] * min(1.0, area), max(samples / 16, 8))
    if not source.startswith("measured"):
        say(f"the defaults for {device.name} are {source}", once=True)
    return Defaults(
        batch_size=1 << max(int(batch).bit_length() - 1, 0),
        precision=precision,
        num_workers=min(workers, max(device.cores - 1, 0)),
        channels_last=channels_last,
        compile=compiled and not small,
        reason=reason,
        source=source,
        device=device.name,
        # A layer on so few pixels is over before a second thread is awake.
        threads=1 if small and device.kind == "cpu" and image_size <= 16 else None,
    )


def precision(accelerator: str = "auto") -> str:
    """The table's precision for the device at hand; what is not plain float32 is said."""
    device = describe_device(accelerator)
    return tell_precision(device, _TABLE[table_key(device)][1])
