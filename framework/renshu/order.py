"""In which order the samples of a map-style data set are read, and how that order is resumed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import data
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from renshu.errors import CheckpointError
from renshu.messages import say
from renshu.seeds import Isolation, SampleSeeds, derive

_DRAWN_WHOLE = (
    SequentialSampler,
    RandomSampler,
    data.SubsetRandomSampler,
    data.WeightedRandomSampler,
    data.DistributedSampler,
)
"""Samplers of torch that depend on generators and the epoch alone: listed at the epoch's start."""

Entry = dict[str, Any]
"""What a resume after a batch needs; of its `epoch`, `position` samples are consumed with it."""


class Share(NamedTuple):
    """Which of a step's samples a process takes: each `world`-th, or a run of them.

    `apart` are the processes among which the loader shares out its samples itself.
    """

    rank: int = 0
    world: int = 1
    strided: bool = True
    apart: int = 1

    def of(self, items: list[Any], size: int) -> tuple[int, int, list[Any]]:
        """Offset, stride and samples of this process; `size` is the most that one takes."""
        if self.strided:
            return self.rank, self.world, items[self.rank :: self.world]
        start = self.rank * size
        return start, 1, items[start : start + size]


class Tag(NamedTuple):
    """One batch to fetch: which indices, and at which global positions of the epoch they stand."""

    epoch: int
    start: int
    stride: int
    indices: Sequence[int]
    single: bool
    total: int | None
    """Samples of this step in all processes; None where only each knows its own."""
    padded: bool
    """The samples belong to another process: this one has none left in this step."""


class PlainOrder:
    """Sequential or shuffled once an epoch: a function of seed, epoch and position alone.

    Position p of an epoch is the same sample whatever the batch size, the number of processes or
    the number of workers. Step k of `world` processes consumes a run of positions; process `rank`
    takes every world-th of it.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, name: str, share: Share):
        self.size = len(loader.dataset)  # type: ignore[arg-type]
        self.seed, self.name, self.share = seed, name, share
        self.batch_size = loader.batch_size or 1
        self.single, self.drop_last = loader.batch_size is None, bool(loader.drop_last)
        self.shuffle = isinstance(loader.sampler, RandomSampler)
        if self.shuffle and (own := loader.sampler.generator) is not None:  # type: ignore[union-attr]
            say("shuffling by the seed of the sampler's generator, not by its state", once=True)
            self.seed = own.initial_seed()

    @staticmethod
    def fits(loader: DataLoader[Any]) -> bool:
        """Whether the loader samples plainly, so that this order may stand in for its sampler."""
        sampler = loader.sampler
        if loader.batch_size is None and loader.batch_sampler is not None:
            return False
        if type(sampler) is RandomSampler:
            return not sampler.replacement and sampler._num_samples is None
        return type(sampler) is SequentialSampler

    def left(self, position: int) -> int:
        """Batches of an epoch after the first `position` positions."""
        whole, rest = divmod(self.size - position, self.batch_size * self.share.world)
        return whole + (rest > 0 and not self.drop_last)

    def indices(self, epoch: int) -> Tensor:
        """The whole epoch's order. [size] int64"""
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed(derive(self.seed, self.name, epoch) & (2**63 - 1))
        return torch.randperm(self.size, generator=generator)

    def tags(self, epoch: int, position: int, before: Any) -> Iterator[tuple[Tag, Entry]]:
        """The batches after the first `position` positions."""
        order, wide = self.indices(epoch), self.batch_size * self.share.world
        for start in range(position, position + self.left(position) * wide, wide):
            items = order[start : start + wide].tolist()
            offset, stride, part = self.share.of(items, self.batch_size)
            # A process without a sample repeats one, so that all take as many steps.
            shown = part or items[:1]
            total = len(items) if self.share.apart == 1 else None
            yield Tag(epoch, start + offset, stride, shown, self.single, total, not part), {}


class SamplerOrder:
    """The order of a user's own sampler or batch sampler, drawn on generators of its own.

    Every epoch starts from generators seeded by the epoch: the global ones, and those that the
    sampler holds. A sampler with `state_dict` is put back to where it was when the last batch was
    consumed, not where prefetching had brought it. Any other is asked for its indices again (the
    data is not read), and the checksum of the consumed ones must be the same.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, name: str, share: Share):
        self.seed, self.name = seed, name
        own = isinstance(loader.sampler, data.DistributedSampler)  # shares out by itself
        self.share = Share(apart=share.world) if own else share
        self.single = loader.batch_sampler is None
        self.source: Any = loader.sampler if self.single else loader.batch_sampler
        self.size, self.drop_last, self.gives_batches = 1, False, not self.single
        if type(self.source) is BatchSampler:
            # Its work is done here, so that the batch size may change.
            self.size, self.drop_last = self.source.batch_size, self.source.drop_last
            self.source, self.gives_batches = self.source.sampler, False
        self.owners = [self.source, getattr(self.source, "sampler", self.source)]
        self.stateful = next((s for s in self.owners if hasattr(s, "load_state_dict")), None)
        self.whole = type(self.source) in _DRAWN_WHOLE
        self.isolation, self.checksum = Isolation(), 0

    def tags(self, epoch: int, position: int, before: Any) -> Iterator[tuple[Tag, Entry]]:
        """The batches after the first `position` samples (batches where they are single).

        `before` is the entry of the batch before, after a resume.

        Raises:
            CheckpointError: the sampler gives another order than before the interruption.
        """
        if before and before["epoch"] < epoch:
            if not self.whole:
                # A fresh sampler ends the epoch before, as that of the interrupted run did.
                source = self._start(before["epoch"], before["position"], before)
                self._next(source, self._wanted(before["position"]) if before["finished"] else 0)
            before = None
        source, entry = self._start(epoch, position, before), {}
        while items := self._next(source, wanted := self._wanted(position)):
            if self.drop_last and len(items) < self.size * self.share.world:
                break
            tag = self._tag(epoch, position, items)
            position += sum(map(len, items)) if self.gives_batches else len(items)
            entry = {"epoch": epoch, "position": position, "checksum": self.checksum}
            entry |= {"ended": len(items) < wanted, "finished": False}
            if self.stateful is not None:
                entry["sampler"] = self.stateful.state_dict()
            yield tag, entry
        # Of the last batch, which is still ours: a limit may have ended the epoch as well.
        entry["finished"] = True

    def _tag(self, epoch: int, position: int, items: list[Any]) -> Tag:
        """This process's part of a step; a sample of another where it has none."""
        if self.gives_batches:
            before = items[: self.share.rank]
            part = items[len(before)] if len(items) > len(before) == self.share.rank else []
            offset, stride, total = sum(map(len, before)), 1, sum(map(len, items))
            shown = part or items[0][:1]
        else:
            offset, stride, part = self.share.of(items, self.size)
            shown, total = part or items[:1], len(items)
        known = None if self.share.apart > 1 else total
        return Tag(epoch, position + offset, stride, shown, self.single, known, not part)

    def _wanted(self, position: int) -> int:
        """Items of the next step; no more than there are, since that would end a `stateful`."""
        wanted = self.size * self.share.world
        with suppress(TypeError, NotImplementedError):
            if self.stateful is not None and not self.gives_batches:
                return min(wanted, max(len(self.source) - position, 1))
        return wanted

    def _start(self, epoch: int, position: int, before: Entry | None) -> Iterator[Any]:
        """What the source gives in an epoch after its first `position` samples."""
        for owner in self.owners:
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(epoch)
        self.checksum, restored = 0, before if self.stateful is not None else None
        with self.isolation:
            SampleSeeds(self.source)(derive(self.seed, self.name, epoch))
            if restored is not None:
                self.stateful.load_state_dict(restored["sampler"])  # type: ignore[union-attr]
            source = iter(list(self.source) if self.whole else self.source)
        if restored is not None:
            return iter(()) if restored["ended"] else source
        skipped = self._skip(source, position)
        if not skipped or (before is not None and before["checksum"] != self.checksum):
            raise CheckpointError(
                f"{type(self.owners[1]).__name__} gave other indices than before the interruption",
                allowed="an order that depends only on set_epoch and the generators of torch, numpy"
                " and Python; or a sampler with state_dict and load_state_dict",
                mend="give it a state_dict, or start the run anew",
            )
        return source

    def _skip(self, source: Iterator[Any], samples: int) -> bool:
        """Go on by so many samples; False where the source ends or gives a batch beyond them."""
        count = 1 if self.gives_batches else 4096
        while samples > 0 and (items := self._next(source, min(samples, count))):
            samples -= len(items[0] if self.gives_batches else items)
        return samples == 0

    def _next(self, source: Iterator[Any], count: int) -> list[Any]:
        """At most `count` further items: indices, or batches of them."""
        with nullcontext() if self.whole else self.isolation:
            items = list(islice(source, count))
        if self.gives_batches:
            items = [list(item) for item in items]
        for indices in items if self.gives_batches else [items]:
            text = "".join(f"{index}," for index in indices)
            self.checksum = zlib.crc32(text.encode(), self.checksum)
        return items
