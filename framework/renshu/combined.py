"""Several loaders as one: `CombinedLoader` for the user, `CombinedFeed` that resumes exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from renshu.data import batch_size
from renshu.errors import CheckpointError, ConfigError, DataError, RunError, unknown
from renshu.feed import Feed, Item, make_feed
from renshu.order import Entry, Share

MODES = {"min_size": min, "max_size": max, "max_size_cycle": max, "sequential": sum}
"""Mode → the length of an epoch from those of the loaders."""

_END: Any = object()
_MANY = 2**20
"""Passes over a loader an epoch, more than there ever are, where lengths are unknown."""


class CombinedLoader:
    """Several loaders read together; the batches come in the same nesting.

    Args:
        iterables: loaders in dicts, lists and tuples, nested as you like. A list or tuple further
            inside that holds no DataLoader is itself a loader: of ready batches.
        mode: min_size ends with the shortest loader; max_size with the longest, with None for those
            that have ended; max_size_cycle too, with the shorter ones begun anew; sequential gives
            the plain batches of one loader after the other.

    Iterating gives (batch, batch_idx, dataloader_idx), the last two of the single loader in
    sequential mode.
    """

    def __init__(self, iterables: Any, mode: str = "min_size"):
        if mode not in MODES:
            raise unknown("mode", mode, MODES, "CombinedLoader")
        self.iterables, self.mode = iterables, mode
        self.flattened, self._nesting = pytree.tree_flatten(
            iterables, is_leaf=lambda item: item is not iterables and is_loader(item)
        )
        if not self.flattened:
            raise ConfigError("there is no loader in it", where="CombinedLoader")

    def nest(self, items: list[Any]) -> Any:
        """One item a loader → the nesting of the loaders."""
        return pytree.tree_unflatten(items, self._nesting)

    def __len__(self) -> int:
        return MODES[self.mode](map(len, self.flattened))

    def __iter__(self) -> Iterator[tuple[Any, int, int]]:
        if self.mode == "sequential":
            for number, loader in enumerate(self.flattened):
                for index, batch in enumerate(loader):
                    yield batch, index, number
            return
        together = {"min_size": zip, "max_size": zip_longest, "max_size_cycle": _cycling}
        for index, batches in enumerate(together[self.mode](*self.flattened)):
            yield self.nest(list(batches)), index, 0


def is_loader(value: Any) -> bool:
    """Whether it is one loader and no collection of them; a list may be one of ready batches."""
    if isinstance(value, (list, tuple)):
        return not any(isinstance(leaf, DataLoader) for leaf in pytree.tree_leaves(value[:8]))
    return not isinstance(value, Mapping)


def _cycling(*loaders: Any) -> Iterator[list[Any]]:
    """Batches of all until each was read to its end once; those that end earlier begin anew."""
    sources, ended = [iter(loader) for loader in loaders], set[int]()
    while True:
        batches = [next(source, _END) for source in sources]
        again = [number for number, batch in enumerate(batches) if batch is _END]
        ended.update(again)
        if len(ended) == len(loaders):
            return
        for number in again:
            sources[number] = iter(loaders[number])
            batches[number] = next(sources[number], _END)
            if batches[number] is _END:
                raise _no_batch(f"loader {number}")
        yield batches


def _no_batch(where: str) -> DataError:
    said = "a loader without a batch cannot begin anew"
    return DataError(said, where=where, mend='CombinedLoader(…, "max_size") gives None for it')


@dataclass
class _Place:
    """Where one loader stands in the epoch."""

    turn: int = 0
    """How many times it was begun anew; `samples` and `batches` are counted from there."""
    samples: int = 0
    batches: int = 0
    last: bool = False


class CombinedFeed(Feed):
    """The batches of several feeds in one of the four modes, from any place of an epoch.

    Each inner feed keeps its own exact resume; the entry of a batch holds those of all. The samples
    of a batch are those of all loaders together. A loader that begins anew within an epoch is read
    as in a further epoch of its own: shuffled and augmented differently.
    """

    def __init__(self, loader: CombinedLoader, seed: int, name: str, *, share: Share | None = None):
        super().__init__(loader, share=share)
        self.name, self.mode = name, loader.mode
        flat = enumerate(loader.flattened)
        self.parts = [make_feed(part, seed, f"{name}/{i}", share=share) for i, part in flat]
        self._places, self._sources = list[_Place](), dict[int, Iterator[Item]]()

    def cut(self, limits: list[int | None]) -> None:
        """Limit each loader; in the modes that read them together this limits the epoch."""
        if self.mode == "sequential":
            super().cut(limits)
        elif None not in limits:
            self.limit = self._length(limits)

    def _whole(self) -> int | None:
        return self._length([None] * len(self.parts))

    def _length(self, limits: list[int | None]) -> int | None:
        """Batches of an epoch with no more than so many of each loader; None if unknown."""
        lengths = [
            min((n for n in (part.length, limit) if n is not None), default=math.inf)
            for part, limit in zip(self.parts, limits, strict=True)
        ]
        length = MODES[self.mode](lengths)
        return None if length == math.inf else int(length)

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        self._start(self._begin(epoch, batches), epoch, batches)
        while not self._over() and batches != self.limit:
            items = {number: self._pull(number, epoch) for number in self._next()}
            if not (all if self.mode == "min_size" else any)(items.values()):
                continue  # what should have given something was empty
            batches += 1
            self.last = self._over() or batches == self.limit
            self._taken.append(self._entry(epoch, batches))
            yield self._together(items)

    def _start(self, before: Entry | None, epoch: int, batches: int) -> None:
        """Put every loader at its place, after a resume to that of the batch before."""
        self._sources.clear()
        for part, place in zip(self.parts, self._places, strict=False):
            if not place.last:  # left in the middle, where prefetching had gone on: come back
                part.load_state_dict(part.state_dict())
        self._places = [_Place(last=part.length == 0) for part in self.parts]
        if before is None and batches == 0:
            return
        saved = [] if before is None else before.get("parts", [])
        if len(saved) != len(self.parts):
            raise CheckpointError(
                f"the checkpoint is of {len(saved) or 'one'} loaders, not {len(self.parts)}",
                where=self.name,
            )
        for part, (_, state) in zip(self.parts, saved, strict=True):
            part.load_state_dict(state)
        if before is not None and before["epoch"] == epoch:
            self._places = [_Place(**place) for place, _ in saved]

    def _entry(self, epoch: int, batches: int) -> Entry:
        states = [part.state_dict() for part in self.parts]
        saved = [[asdict(p), s] for p, s in zip(self._places, states, strict=True)]
        return {"epoch": epoch, "position": batches, "parts": saved}

    def _over(self) -> bool:
        """Whether the epoch's last batch is out."""
        if self.mode == "min_size":
            return any(place.last for place in self._places)
        cycles = self.mode == "max_size_cycle"
        return all(place.last or (cycles and place.turn) for place in self._places)

    def _next(self) -> list[int]:
        """The loaders that give something to the next batch."""
        if self.mode == "max_size_cycle":
            return list(range(len(self.parts)))
        left = [number for number, place in enumerate(self._places) if not place.last]
        return left[:1] if self.mode == "sequential" else left

    def _pull(self, number: int, epoch: int) -> Item | None:
        part, place = self.parts[number], self._places[number]
        if place.last:
            self._sources.pop(number, None)
            self._places[number] = place = _Place(turn=place.turn + 1)
        if number not in self._sources:
            turn = epoch * self._turns(part) + place.turn
            self._sources[number] = part.epoch(turn, place.samples, place.batches)
        item = next(self._sources[number], None)
        if item is None and self.mode == "max_size_cycle":
            raise _no_batch(f"{self.name}/{number}")
        if item is not None:
            place.batches += 1
            place.samples += (item[1] or 0) if part.total is None else part.total
        place.last = item is None or part.last
        return item

    def _turns(self, part: Feed) -> int:
        """Times that a loader is begun in an epoch, whatever the limits."""
        if self.mode != "max_size_cycle":
            return 1
        whole, length = self._whole(), part.length
        return -(-whole // length) if whole and length else _MANY

    def _together(self, items: dict[int, Item | None]) -> Item:
        """One batch and its samples from those of the loaders."""
        parts = [self.parts[number] for number in items]
        totals = [part.total for part in parts]
        self.total = None if None in totals else sum(totals)  # type: ignore[arg-type]
        given = [item for item in items.values() if item is not None]
        counts = [_samples(*item) for item in given]
        count = None if None in counts else sum(counts)  # type: ignore[arg-type]
        if self.mode == "sequential":
            return given[0][0], count
        found = [items.get(number) for number in range(len(self.parts))]
        return self.loader.nest([item and item[0] for item in found]), count

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def lost_worker(self, error: BaseException) -> RunError | None:
        return next(filter(None, (part.lost_worker(error) for part in self.parts)), None)


def _samples(batch: Any, count: int | None) -> int | None:
    """Samples of a loader's batch, if they can be told."""
    with suppress(ConfigError):
        return batch_size(batch) if count is None else count
    return None
