"""In which order the samples of a map-style data set are read, and how that order is resumed."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
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
from renshu.seeds import Isolation, derive, mix, private_generators

_OF_TORCH = (
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    DistributedSampler,
)
"""Samplers that depend on generators and the epoch alone; drawn whole at the epoch's start."""


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
        given = loader.batch_size is None and loader.batch_sampler is not None
        return plain and not given

    @property
    def length(self) -> int:
        """Batches an epoch."""
        return self.left(0)

    def left(self, position: int) -> int:
        """Batches of an epoch after the first `position` positions."""
        whole, rest = divmod(self.size - position, self.batch_size * self.world)
        return whole + (rest > 0 and not self.drop_last)

    def indices(self, epoch: int) -> Tensor:
        """The whole epoch's order. [size] int64"""
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator()
        generator.manual_seed(derive(self.seed, self.name, epoch) & 0x7FFFFFFFFFFFFFFF)
        return torch.randperm(self.size, generator=generator)

    def slices(self, epoch: int, position: int) -> Iterator[tuple[int, Tensor]]:
        """Position and indices of each batch after the first `position` positions."""
        order, wide = self.indices(epoch), self.batch_size * self.world
        for number in range(self.left(position)):
            start = position + number * wide
            part = order[start : start + wide]
            yield start, part if self.world == 1 else part[self.rank :: self.world]

    def tags(self, epoch: int, position: int) -> Iterator[Tag]:
        """The batches after the first `position` positions."""
        for start, part in self.slices(epoch, position):
            yield Tag(epoch, start + self.rank, self.world, part.tolist(), self.single)

    def taken(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class SamplerOrder:
    """The order of a user's own sampler or batch sampler, drawn on generators of its own.

    Every epoch starts from generators seeded by the epoch: the global ones, and those that the
    sampler holds (a torch.Generator by its own initial seed). A sampler with `state_dict` is put
    back to where it was when the last batch was consumed, not where prefetching had brought it.
    Any other is asked for its indices again (the data is not read); a hash over the consumed ones,
    and the plain attributes that the sampler had at the epoch's start, must be the same.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, name: str):
        self.seed, self.name = seed, name
        self.single = loader.batch_sampler is None
        self._sized: Any = loader.sampler if self.single else loader.batch_sampler
        self.source: Any = self._sized
        self.size, self.drop_last = 1, False
        # An ordinary BatchSampler's work is done here, so that the batch size may change.
        self.gives_batches = not self.single
        if type(self.source) is BatchSampler:
            self.size, self.drop_last = self.source.batch_size, self.source.drop_last
            self.source, self.gives_batches = self.source.sampler, False
        self.sampler: Any = getattr(self.source, "sampler", self.source)
        self.stateful = next(
            (s for s in (self.source, self.sampler) if hasattr(s, "load_state_dict")), None
        )
        self.isolation = Isolation()
        self._private = [
            (item.initial_seed() if isinstance(item, torch.Generator) else seed, setter)
            for item, setter in private_generators(self.source, depth=3)
        ]
        self._epoch, self._attributes = 0, {}
        self._digest: Any = None
        self._drawn: deque[dict[str, Any]] = deque()
        # The batch that is out, and the one before: a save inside a step has not consumed it yet.
        self._taken: deque[dict[str, Any]] = deque(maxlen=2)
        self._resume: dict[str, Any] = {}

    @property
    def length(self) -> int | None:
        """Batches an epoch, if the sampler says."""
        try:
            return len(self._sized)
        except (TypeError, NotImplementedError):
            return None

    def tags(self, epoch: int, position: int) -> Iterator[Tag]:
        """The batches after the first `position` samples (batches where they are single)."""
        resume, self._resume = self._resume, {}
        if resume and resume["epoch"] < epoch:
            self._finish(resume)
            resume = {}
        source = self._start(epoch, position, resume)
        while items := self._next(source, wanted := self._wanted(position)):
            if self.drop_last and len(items) < self.size:
                break
            indices = items[0] if self.gives_batches else items
            tag = Tag(epoch, position, 1, indices, self.single)
            position += len(indices)
            self._drawn.append(self._entry(position, ended=len(items) < wanted))
            yield tag

    def _wanted(self, position: int) -> int:
        """Items of the next batch; no more than there are, since that would end a `stateful`."""
        if self.stateful is None or self.gives_batches or self.length is None:
            return self.size
        return min(self.size, max(len(self.source) - position, 1))

    def _entry(self, position: int, ended: bool) -> dict[str, Any]:
        """What a resume after this batch needs."""
        entry = {"position": position, "ended": ended, "digest": self._digest.hexdigest()}
        return entry if self.stateful is None else {**entry, "sampler": self.stateful.state_dict()}

    def _finish(self, resume: dict[str, Any]) -> None:
        """Let a fresh sampler end the epoch before, as it did in the run that is resumed."""
        if resume["taken"] and type(self.source) not in _OF_TORCH:
            source = self._start(resume["epoch"], resume["taken"][-1]["position"], resume)
            self._next(source, 1)

    def _start(self, epoch: int, position: int, resume: dict[str, Any]) -> Iterator[Any]:
        """What the source gives in an epoch after its first `position` samples."""
        for owner in (self.source, self.sampler):
            if hasattr(owner, "set_epoch"):
                owner.set_epoch(epoch)
        self._drawn.clear()
        self._taken.clear()
        self._epoch, self._attributes = epoch, _plain(self.source) | _plain(self.sampler)
        self._digest = hashlib.blake2b(digest_size=16)
        self.isolation.seed(derive(self.seed, self.name, epoch))
        for number, (base, setter) in enumerate(self._private):
            setter(mix(derive(base, self.name, epoch) + number))
        found = [entry for entry in resume.get("taken", ()) if entry["position"] == position]
        if self.stateful is not None and found:
            self.stateful.load_state_dict(found[0]["sampler"])
            source = self._iterate()
            return iter(()) if found[0]["ended"] else source
        source = self._iterate()
        self._skip(source, position)
        if (
            resume
            and position
            and not (
                found
                and found[0]["digest"] == self._digest.hexdigest()
                and (type(self.source) in _OF_TORCH or resume["attributes"] == self._attributes)
            )
        ):
            raise _other_order(self.sampler)
        return source

    def _skip(self, source: Iterator[Any], samples: int) -> None:
        while samples > 0:
            items = self._next(source, 1 if self.gives_batches else min(samples, 4096))
            samples -= len(items[0] if self.gives_batches and items else items)
            if samples < 0 or not items:
                raise _other_order(self.sampler)

    def _iterate(self) -> Iterator[Any]:
        with self.isolation:
            if type(self.source) in _OF_TORCH and len(self.source) < 10_000_000:
                return iter(list(self.source))
            return iter(self.source)

    def _next(self, source: Iterator[Any], count: int) -> list[Any]:
        """At most `count` further items: indices, or batches of them."""
        with self.isolation:
            items = list(islice(source, count))
        if self.gives_batches:
            items = [list(item) for item in items]
        for indices in items if self.gives_batches else [items]:
            self._digest.update("".join(f"{index}," for index in indices).encode())
        return items

    def taken(self) -> None:
        """The loop took the oldest batch that was drawn."""
        self._taken.append(self._drawn.popleft())

    def state_dict(self) -> dict[str, Any]:
        if self._resume:
            return self._resume
        state = {"epoch": self._epoch, "attributes": self._attributes}
        return {**state, "taken": list(self._taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = state


def _plain(owner: Any) -> dict[str, Any]:
    """The attributes of a sampler that are plain values."""
    kinds = (int, float, str, bool)
    return {k: v for k, v in getattr(owner, "__dict__", {}).items() if type(v) in kinds}


def _other_order(sampler: object) -> CheckpointError:
    return CheckpointError(
        f"{type(sampler).__name__} gave other indices than before the interruption",
        allowed="a sampler whose order depends only on torch, numpy or Python's random, or on"
        " set_epoch; or one with state_dict and load_state_dict",
        mend="give it a state_dict, or start the run anew",
    )
