"""In which order the samples of a map-style data set are read, and how that order is resumed."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from renshu.errors import CheckpointError
from renshu.seeds import Isolation, derive, walk

_DRAW_AT_ONCE = (
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    DistributedSampler,
)


class Tag(NamedTuple):
    """One batch to fetch: which indices, and at which global positions of the epoch they stand."""

    epoch: int
    start: int
    stride: int
    indices: Sequence[int] | Tensor
    single: bool


class PlainOrder:
    """Sequential or shuffled once an epoch: a function of seed, epoch and position alone.

    Position p of an epoch is the same sample whatever the batch size, the number of processes or
    the number of workers. Step k of `world` processes consumes a run of positions; process `rank`
    takes every world-th of it.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, name: str, rank: int, world: int):
        self.size = len(loader.dataset)  # type: ignore[arg-type]
        self.seed, self.name, self.rank, self.world = seed, name, rank, world
        self.batch_size = loader.batch_size or 1
        self.single = loader.batch_size is None
        self.drop_last = bool(loader.drop_last)
        self.shuffle = isinstance(loader.sampler, RandomSampler)
        own = getattr(loader.sampler, "generator", None)
        if self.shuffle and own is not None:
            self.seed = own.initial_seed()

    @staticmethod
    def fits(loader: DataLoader[Any]) -> bool:
        """Whether the loader samples plainly, so that this order may stand in for its sampler."""
        sampler = loader.sampler
        plain = type(sampler) is SequentialSampler or (
            type(sampler) is RandomSampler
            and not sampler.replacement
            and sampler._num_samples is None
        )
        return plain and (loader.batch_size is None or type(loader.batch_sampler) is BatchSampler)

    @property
    def length(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(self.size, self.batch_size * self.world)
        return whole + (rest > 0 and not self.drop_last)

    def indices(self, epoch: int) -> Tensor:
        """The whole epoch's order. [size] int64"""
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator()
        generator.manual_seed(derive(self.seed, self.name, epoch) & 0x7FFFFFFFFFFFFFFF)
        return torch.randperm(self.size, generator=generator)

    def slices(self, epoch: int, samples: int) -> Iterator[tuple[int, Tensor]]:
        """Position and indices of each batch after the first `samples` positions."""
        order, wide = self.indices(epoch), self.batch_size * self.world
        end = self.size - self.size % wide if self.drop_last else self.size
        for start in range(samples, end, wide):
            part = order[start : min(start + wide, end)]
            yield start, part if self.world == 1 else part[self.rank :: self.world]

    def tags(self, epoch: int, samples: int) -> Iterator[Tag]:
        """The batches after the first `samples` positions."""
        for start, part in self.slices(epoch, samples):
            yield Tag(epoch, start + self.rank, self.world, part.tolist(), self.single)

    def taken(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class SamplerOrder:
    """The order of a user's own sampler or batch sampler, drawn on generators of its own.

    A sampler with `state_dict` is put back to where it was when the last batch was consumed, not
    where prefetching had brought it. Any other is asked for its indices again (the data is not
    read); a hash over the consumed indices shows whether it gave the same ones.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, name: str):
        self.seed, self.name = seed, name
        self.single = loader.batch_sampler is None
        self.source: Any = loader.sampler if self.single else loader.batch_sampler
        self.sampler: Any = getattr(self.source, "sampler", self.source)
        self.stateful = next(
            (s for s in (self.source, self.sampler) if hasattr(s, "load_state_dict")), None
        )
        self.isolation = Isolation()
        self._drawn: deque[tuple[str, Any]] = deque()
        self._taken: tuple[str, Any] = ("", None)
        self._resume: dict[str, Any] = {}
        self._generators: list[Tensor] = []

    @property
    def length(self) -> int | None:
        """Batches an epoch, if the sampler says."""
        try:
            return len(self.source)
        except TypeError:
            return None

    def tags(self, epoch: int, samples: int) -> Iterator[Tag]:
        """The batches after the first `samples` samples."""
        for owner in (self.source, self.sampler):
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(epoch)
        digest, position = hashlib.blake2b(digest_size=16), 0
        self._drawn.clear()
        resume, self._resume = self._resume, {}
        replay = samples if self.stateful is None else 0
        self._prepare(epoch, samples, resume)
        if self.stateful is not None:
            position = samples
        for item in self._draw():
            indices = [item] if self.single else list(item)
            digest.update(repr(indices).encode())
            position += len(indices)
            if position <= replay:
                if position == replay and resume and digest.hexdigest() != resume["digest"]:
                    raise _other_order(self.sampler)
                continue
            state = self.stateful.state_dict() if self.stateful is not None else None
            self._drawn.append((digest.hexdigest(), state))
            yield Tag(epoch, position - len(indices), 1, indices, self.single)

    def _prepare(self, epoch: int, samples: int, resume: dict[str, Any]) -> None:
        """Put the sampler where the epoch, or the interrupted part of it, began."""
        self.isolation.seed(derive(self.seed, self.name, epoch))
        private = [g for g in walk(self.source, depth=3) if isinstance(g, torch.Generator)]
        if samples and resume:
            for generator, state in zip(private, resume["generators"], strict=True):
                generator.set_state(state)
            if self.stateful is not None:
                self.stateful.load_state_dict(resume["sampler"])
        self._generators = [generator.get_state() for generator in private]

    def _draw(self) -> Iterator[Any]:
        if type(self.sampler) in _DRAW_AT_ONCE and type(self.source) in (
            BatchSampler,
            type(self.sampler),
        ):
            with self.isolation:
                items = list(self.source)
            yield from items
            return
        with self.isolation:
            source = iter(self.source)
        while True:
            with self.isolation:
                item = next(source, None)
            if item is None:
                return
            yield item

    def taken(self) -> None:
        """The loop took the oldest batch that was drawn."""
        self._taken = self._drawn.popleft()

    def state_dict(self) -> dict[str, Any]:
        digest, sampler = self._taken
        return {"digest": digest, "sampler": sampler, "generators": self._generators}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = state


def _other_order(sampler: object) -> CheckpointError:
    return CheckpointError(
        f"{type(sampler).__name__} gave other indices than before the interruption",
        allowed="a sampler whose order depends only on torch, numpy or Python's random, or on"
        " set_epoch; or one with state_dict and load_state_dict",
        mend="give it a state_dict, or start the epoch anew from an epoch's last checkpoint",
    )
