"""What exactness costs while loading: the generators saved, restored and seeded, samples ordered.

Every sample of renshu's loader is seeded by its position, and without workers the training
process' own generators are put aside while a batch is made. Here: 64×64 colour pictures with the
usual augmentation (crop and resize, mirror, brightness and contrast) in batches of 32, torch's
DataLoader and renshu's around the same object in turns, one thread a process; workers persist on
both sides and the first epoch, which starts them, is left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import v2

import _table
from renshu.feed import Feed, make_feed
from renshu.seeds import Isolation, SampleSeeds

BATCH = 32
TORCH = _table.named("torch")


class Pictures(Dataset[tuple[Tensor, int]]):
    """Random uint8 pictures [3, 64, 64], augmented one by one."""

    def __init__(self, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.pixels = torch.randint(256, (size, 3, 64, 64), dtype=torch.uint8, generator=generator)
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(64, scale=(0.6, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.2, contrast=0.2),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.augment(self.pixels[index]), index % 10


def whole_epochs(loader: DataLoader[Any], feed: Feed, epoch: int) -> tuple[float, float]:
    """Seconds of an epoch of torch's loader, then of renshu's around it."""
    times = []
    for batches in (iter(loader), feed.epoch(epoch, 0, 0)):
        start = time.perf_counter()
        for _ in batches:
            pass
        times.append(time.perf_counter() - start)
    return times[0], times[1]


def batch_by_batch(loader: DataLoader[Any], feed: Feed, epoch: int) -> tuple[float, float]:
    """The same with every other batch from the other: the machine's moods strike both alike."""
    times, sources = [0.0, 0.0], (iter(loader), feed.epoch(epoch, 0, 0))
    for number in range(len(loader)):
        for which in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            next(sources[which])
            times[which] += time.perf_counter() - start
    return times[0], times[1]


def in_turns(loader: DataLoader[Any], epochs: int) -> tuple[list[float], list[float]]:
    """Seconds an epoch of torch's loader and of renshu's around it."""
    # Workers prefetch while the other's batch is awaited, so there whole epochs take turns.
    turn = whole_epochs if loader.num_workers else batch_by_batch
    feed = make_feed(loader, 1, "train")
    plain, ours = [], []
    try:
        for epoch in range(epochs + 1):
            theirs, mine = turn(loader, feed, epoch)
            if epoch:
                plain.append(theirs)
                ours.append(mine)
    finally:
        feed.close()
    return plain, ours


def pictures(workers: int, size: int, epochs: int) -> Iterable[_table.Row]:
    """The share that exactness adds to loading augmented pictures, and the plain figures."""
    loader = DataLoader(
        Pictures(size),
        batch_size=BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    plain, ours = in_turns(loader, epochs)
    shares = [(mine / base - 1) * 100 for mine, base in zip(ours, plain, strict=True)]
    yield _table.Row(
        f"64×64 pictures with augmentation, workers {workers}: time above torch's DataLoader",
        "%",
        renshu=statistics.median(shares),
        reach="<= 2",
        spread=f"{min(shares):.1f} to {max(shares):.1f}",
    )
    yield _table.Row(
        f"64×64 pictures with augmentation, workers {workers}: time a sample",
        "µs",
        renshu=statistics.median(ours) / size * 1e6,
        peer=statistics.median(plain) / size * 1e6,
        peer_version=TORCH,
    )


def tensors(epochs: int) -> Iterable[_table.Row]:
    """A data set that draws nothing is exempt: here the loader must cost nothing at all."""
    size = 8 * 3000
    data = TensorDataset(torch.randn(size, 32), torch.zeros(size, dtype=torch.long))
    plain, ours = in_turns(DataLoader(data, batch_size=8, shuffle=True), epochs)
    yield _table.Row(
        "TensorDataset in batches of 8, workers 0: time a batch",
        "µs",
        renshu=statistics.median(ours) / 3000 * 1e6,
        peer=statistics.median(plain) / 3000 * 1e6,
        peer_version=TORCH,
        reach="<= peer",
    )


def micros(call: Callable[[int], object], repeats: int = 5, number: int = 2000) -> float:
    """Microseconds of one call, the best of some repeats: a cost by itself has no noise below."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for index in range(number):
            call(index)
        best = min(best, (time.perf_counter() - start) / number)
    return best * 1e6


def parts() -> Iterable[_table.Row]:
    """The two costs by themselves, as the loader without workers has them."""
    isolation = Isolation(keep=False)

    def aside(_: int) -> None:
        with isolation:
            pass

    seeds = SampleSeeds(Pictures(1))
    yield _table.Row("saving and restoring the generators, a batch", "µs", renshu=micros(aside))
    yield _table.Row("seeding all generators, the first sample of a batch", "µs", micros(seeds))
    quiet = list(range(BATCH))
    yield _table.Row(
        "seeding and looking for draws, a sample of a batch that draws from torch alone",
        "µs",
        micros(lambda _: seeds.read(quiet, quiet, quiet), number=500) / BATCH,
    )


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows."""
    torch.set_num_threads(1)
    size, epochs = (640, 3) if quick else (2048, 9)
    yield from parts()
    yield from tensors(epochs)
    for workers in (0, 2):
        yield from pictures(workers, size, epochs)


if __name__ == "__main__":
    _table.main(__file__, measure)
