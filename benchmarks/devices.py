"""What this device does fastest with the small network: batch size and memory format.

The measured rows of `renshu_tasks/image_classification/defaults.py` name this command as their
source. One row a setting: pictures a second of a training step, beside batch 64 as it is.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

import torch
from torch.nn.functional import cross_entropy

import _table
from renshu_tasks.image_classification.models import SmallNet

SETTINGS = [(32, False), (64, False), (128, False), (256, False), (64, True), (128, True)]


def rate(side: int, batch: int, channels_last: bool, steps: int) -> float:
    """Pictures a second of forward, backward and update; the median of the steps."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = SmallNet(channels=3, classes=10, blocks=3 if side >= 32 else 2)
    network.to(device, memory_format=layout)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters())
    pictures = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=layout)
    labels = torch.randint(10, (batch,), device=device)
    times = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        optimizer.zero_grad()
        cross_entropy(network(pictures), labels).backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return batch / statistics.median(times[2:])


def measure(quick: bool) -> Iterable[_table.Row]:
    """Each setting beside batch 64 in the ordinary memory format."""
    steps = 4 if quick else 20
    for side in (8, 32):
        base = rate(side, 64, False, steps)
        for batch, channels_last in SETTINGS:
            name = f"{side}×{side}, batch {batch}{', channels last' if channels_last else ''}"
            found = rate(side, batch, channels_last, steps)
            yield _table.Row(
                f"small network, {name}", "pictures/s", found, base, "batch 64, contiguous"
            )


if __name__ == "__main__":
    _table.main(__file__, measure)
