"""The resumable loader: batches of a user's loader from any position of any epoch, exactly.

A DataLoader is shallow-copied, never rebuilt: workers, pinning, collate function and everything
else stay the user's. What changes is where the indices come from, that every sample is seeded by
its position, and that workers live as long as the fit.
"""

from __future__ import annotations

import copy
import os
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils import data
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, _utils

from renshu import seeds
from renshu.errors import CheckpointError, DataError, RunError
from renshu.messages import say
from renshu.order import Entry, PlainOrder, SamplerOrder, Share, Tag
from renshu.seeds import Isolation, SampleSeeds, derive, mix
from renshu.signals import shield_worker

Item = tuple[Any, int | None]
"""A batch, and how many samples it has where the loader knows."""


class Feed:
    """A list of ready batches; the base of the other feeds.

    `last` is True while the epoch's last batch is out. `limit` cuts an epoch short. `total` are the
    samples of the batches that all processes have out, None where only each knows its own. `parts`
    are the feeds of which it is made: itself, or several.
    """

    total: int | None = None
    indices: Sequence[int] | None = None
    """Numbers of the samples that are out, in their data set; None where they are not known."""

    def __init__(self, loader: Any, *, limit: int | None = None, share: Share | None = None):
        self.loader, self.limit, self.last = loader, limit, False
        self.share = share or Share()
        self._resume: dict[str, Any] = {}
        # The batch that is out, and the one before: a save inside a step has not consumed it yet.
        self._taken: deque[Entry] = deque(maxlen=2)
        self._clone: DataLoader[Any] | None = None
        self.parts: list[Feed] = [self]

    def cut(self, limits: list[int | None]) -> None:
        """Limit the batches an epoch of each part."""
        for part, limit in zip(self.parts, limits, strict=True):
            part.limit = limit

    @property
    def length(self) -> int | None:
        """Batches an epoch with the limit, or None if unknown."""
        length = self._whole()
        return length if length is None or self.limit is None else min(length, self.limit)

    def _whole(self) -> int | None:
        try:
            return -(-len(self.loader) // self.share.world)
        except (TypeError, NotImplementedError):
            return None

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        """What is left of an epoch of which `samples` samples in `batches` batches are consumed."""
        length, (rank, world, *_) = self.length or 0, self.share
        for number in range(batches, length):
            self.last = number + 1 == length
            mine = number * world + rank
            # A process without a batch repeats one, so that all take as many steps.
            padded = mine >= len(self.loader)
            yield self.loader[-1 if padded else mine], 0 if padded else None

    def _begin(self, epoch: int, position: int) -> Entry | None:
        """Start anywhere; after a resume the entry of the batch before this place, if any."""
        saved, self._resume = self._resume.get("taken", ()), {}
        before = [e for e in saved if (e["epoch"], e["position"]) <= (epoch, position)]
        self._taken.extend(before)
        return before[-1] if before else None

    def state_dict(self) -> dict[str, Any]:
        return self._resume or {"taken": list(self._taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = state

    def close(self) -> None:
        """End the workers."""
        if self._clone is not None and self._clone._iterator is not None:
            with suppress(RuntimeError):  # torch's word about a worker that died, said already
                self._clone._iterator._shutdown_workers()  # type: ignore[attr-defined]
            self._clone._iterator = None

    def lost_worker(self, error: BaseException) -> RunError | None:
        """Our error for what torch says, in several ways and anywhere, of a worker that died."""
        workers = getattr(getattr(self._clone, "_iterator", None), "_workers", ())
        dead = None
        # A broken connection comes some moments before the end is known.
        for _ in range(50 if isinstance(error, (ConnectionError, EOFError)) else 1):
            with suppress(RuntimeError):  # torch's, from its handler of signals, wherever we are
                dead = dead or next((worker for worker in workers if worker.exitcode), None)
                if workers and dead is None:
                    time.sleep(0.1)
        if dead is not None and isinstance(error, Exception):
            return RunError(
                f"a worker of a loader (process {dead.pid}) {_ending(dead.exitcode)}",
                mend="SIGKILL is mostly a lack of memory (dmesg tells), SIGBUS a full /dev/shm:"
                " fewer workers or smaller batches; num_workers=0 shows an error of the data",
            )
        return None


class MapFeed(Feed):
    """Batches of a DataLoader over a map-style data set."""

    def __init__(
        self, loader: DataLoader[Any], seed: int, name: str, *,
        limit: int | None = None, share: Share | None = None,
    ):  # fmt: skip
        super().__init__(loader, limit=limit, share=share)
        self.order: PlainOrder | SamplerOrder
        if PlainOrder.fits(loader):
            self.order = PlainOrder(loader, seed, name, self.share)
        else:
            self.order = SamplerOrder(loader, seed, name, self.share)
            self.share = self.order.share
        self.fetch = _Fetch(loader.dataset, loader.collate_fn, seed, name)
        self._tags, self._seen = _Tags(), {}
        self._clone = _cloned(loader, self.fetch, batch_sampler=self._tags, collate_fn=_same)
        # Drawn and not yet taken: entry, indices, samples of all processes, the last or not.
        self._drawn: deque[tuple[Entry, Sequence[int], int | None, bool]] = deque()
        wanted = loader.pin_memory and torch.accelerator.is_available()
        self._ready = _utils.pin_memory.pin_memory if wanted else _same

    def _whole(self) -> int | None:
        return self.order.left(0) if isinstance(self.order, PlainOrder) else super()._whole()

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        position = batches * self.share.world if self.order.single else samples
        position //= self.share.apart
        tags = self.order.tags(epoch, position, self._begin(epoch, position))
        left = None if self.limit is None else max(self.limit - batches, 0)
        tags = self._ahead(islice(tags, left))
        return self._from_workers(tags) if self.loader.num_workers else self._in_process(tags)

    def _ahead(self, tags: Iterator[tuple[Tag, Entry]]) -> Iterator[Tag]:
        """Each tag when it is known whether another follows; `_take` hears of it in time."""
        self._drawn.clear()
        drawn = next(tags, None)
        while drawn is not None:
            following = next(tags, None)
            tag, entry = drawn
            self._drawn.append((entry, tag.indices, tag.total, following is None))
            yield tag
            drawn = following

    def _take(self) -> None:
        """The loop gets the batch of the oldest tag that is out."""
        entry, self.indices, self.total, self.last = self._drawn.popleft()
        if entry:
            self._taken.append(entry)

    def _in_process(self, tags: Iterable[Tag]) -> Iterator[Item]:
        fetch, take, ready = self.fetch, self._take, self._ready
        fetch.seeds = None
        isolation = nullcontext() if fetch.draws_nothing else Isolation(keep=False)
        for tag in tags:
            with isolation:
                count, batch = fetch(tag)
            take()
            yield ready(batch), count

    def _from_workers(self, tags: Iterable[Tag]) -> Iterator[Item]:
        seen, clone = _attributes(self.loader.dataset), self._clone
        assert clone is not None
        if clone._iterator is not None and seen != self._seen:
            say("the data set was changed between epochs, so its workers start again", once=True)
            self.close()
        self._seen, self._tags.tags = seen, tags
        for count, batch in clone:
            self._take()
            yield batch, count


class IterableFeed(Feed):
    """Batches of a DataLoader over an iterable data set, or of any other iterable.

    It resumes through `state_dict` of the loader or (without workers) of the data set; else what
    was consumed is read again and dropped, which is exact for the same number of workers only.
    """

    def __init__(self, loader: Any, seed: int, name: str, *, limit: int | None = None):
        super().__init__(loader, limit=limit)
        self.seed, self.name, self.isolation = seed, name, Isolation()
        self.owner: Any = loader
        self._layout: list[Any] = []
        if _plain_loader(loader) and not hasattr(loader, "load_state_dict"):
            dataset = _SeededIterable(loader.dataset, seed, name)
            counted = partial(_counted, loader.collate_fn, loader.batch_size is not None)
            self._clone = _cloned(loader, dataset, collate_fn=counted)
            self._layout = [loader.num_workers, loader.batch_size]
            self.owner = loader.dataset if loader.num_workers == 0 else None
        self._stateful = hasattr(self.owner, "load_state_dict")

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        source = self._start(epoch, batches, self._begin(epoch, batches))
        item = None if batches == self.limit else self._pull(source)
        if item is None and epoch and not batches:
            raise DataError(
                f"the loader gave no batch in epoch {epoch}",
                where=self.name,
                allowed="an iterable that begins anew; a generator can be read only once",
            )
        while item is not None:
            batches += 1
            entry = self._entry(epoch, batches, source)
            following = None if batches == self.limit else self._pull(source)
            self.last = following is None
            entry["finished"] = self.last and batches != self.limit
            if entry["finished"] and batches != (said := self._whole() or batches):
                say(f"{self.name}: the loader says {said} batches and gave {batches}", once=True)
            self._taken.append(entry)
            yield item
            item = following

    def _start(self, epoch: int, batches: int, before: Entry | None) -> Iterator[Any]:
        """The epoch's items after its first `batches`."""
        if before is not None and self._stateful:
            source = self._restored(before)
            if before["epoch"] == epoch:
                return source
            if before["finished"]:
                # Its end of the epoch before, which the run that is resumed has seen.
                self._pull(source)
        elif before is not None and before["layout"] != self._layout:
            raise CheckpointError(
                "an iterable data set continues with the same workers and batch size only",
                where=self.name,
                allowed="num_workers={}, batch_size={}".format(*before["layout"]),
                mend="or give the data set state_dict and load_state_dict, and no workers",
            )
        source = self._open(epoch)
        if batches:
            say(f"{self.name}: reading {batches} batches again to come back to where the run was")
        for _ in range(batches):
            self._pull(source)
        return source

    def _open(self, epoch: int) -> Iterator[Any]:
        self.isolation.seed(derive(self.seed, self.name, epoch))
        with self.isolation:
            if self._clone is not None:
                self._clone.dataset.epoch.fill_(epoch)  # type: ignore[attr-defined]
                return iter(self._clone)
            SampleSeeds(self.loader)(derive(self.seed, self.name, epoch))
            return iter(self.loader)

    def _restored(self, entry: Entry) -> Iterator[Any]:
        self.owner.load_state_dict(entry["stateful"])
        source = self._open(entry["epoch"])
        self.isolation.state = entry["random"]
        seeds.set_private_states(self.owner, entry["private"])
        return iter(()) if entry["ended"] else source

    def _pull(self, source: Iterator[Any]) -> Item | None:
        with self.isolation:
            item: Any = next(source, _END)
        if item is _END:
            return None
        return (item[1], item[0]) if self._clone is not None else (item, None)

    def _entry(self, epoch: int, batches: int, source: Any) -> Entry:
        entry: Entry = {"epoch": epoch, "position": batches, "layout": self._layout}
        if self._stateful:
            # A short batch shows that a DataLoader's iterator has seen the end of its data set.
            ended = getattr(getattr(source, "_dataset_fetcher", None), "ended", False)
            entry |= {"ended": ended, "stateful": self.owner.state_dict()}
            entry |= {"random": self.isolation.state, "private": seeds.private_states(self.owner)}
        return entry


def make_feed(
    loader: Any, seed: int, name: str, *, limit: int | None = None, share: Share | None = None
) -> Feed:
    """The feed for a loader: a DataLoader, or anything that can be iterated over."""
    if isinstance(loader, (list, tuple)):
        return Feed(loader, limit=limit, share=share)
    if _plain_loader(loader) and not isinstance(loader.dataset, IterableDataset):
        return MapFeed(loader, seed, name, limit=limit, share=share)
    if not isinstance(loader, Iterable) or isinstance(loader, (Mapping, str, Iterator)):
        raise DataError(
            f"{type(loader).__name__} is not a loader",
            where=name,
            allowed="a DataLoader, or a list or other iterable of batches that can begin anew",
        )
    if share is not None and share.world > 1:
        if not share.strided:
            said = "an iterable cannot be shared out, so its samples would count several times"
            mend = "a map-style data set, or use_distributed_sampler=False if it looks at the rank"
            raise DataError(said, where=name, mend=mend)
        say(f"{name}: an iterable is not shared out; it has to look at the process's rank itself")
    return IterableFeed(loader, seed, name, limit=limit)


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def _plain_loader(loader: Any) -> bool:
    """Whether a loader is a DataLoader that iterates as DataLoader does."""
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__


class _Fetch(data.Dataset[Any]):
    """Tag → (count, batch), with every sample seeded by its position. Runs in workers as well."""

    def __init__(self, dataset: Any, collate: Any, seed: int, name: str):
        self.dataset, self.collate, self.seed, self.name = dataset, collate, seed, name
        self.draws_nothing = _draws_nothing(dataset) and collate is data.default_collate
        self.cuts_tensors = type(dataset) is TensorDataset and self.draws_nothing
        self.takes_seeds = callable(getattr(dataset, "read_batch", None))
        self.reads_batches = _reads_batches(dataset)
        if self.reads_batches and not (self.draws_nothing or self.takes_seeds):
            say("the data set reads whole batches: its random draws repeat per batch", once=True)
        # Found in the process that reads: they belong to its copy of the data set.
        self.seeds: SampleSeeds | None = None

    def __call__(self, tag: Tag) -> tuple[int | None, Any]:
        count = 0 if tag.padded else None if tag.single else len(tag.indices)
        if self.cuts_tensors and not tag.single:
            indices = torch.tensor(tag.indices)
            return count, [tensor[indices] for tensor in self.dataset.tensors]
        samples = (
            [self.dataset[i] for i in tag.indices] if self.draws_nothing else self._seeded(tag)
        )
        return count, self.collate(samples[0] if tag.single else samples)

    # The name that torch's fetcher calls with what the batch sampler gave.
    __getitems__ = __call__

    def _seeded(self, tag: Tag) -> Any:
        if self.seeds is None:
            self.seeds = SampleSeeds(self.dataset, self.collate)
        seed, dataset, base = self.seeds, self.dataset, derive(self.seed, self.name, tag.epoch)
        positions = range(tag.start, tag.start + tag.stride * len(tag.indices), tag.stride)
        each = [mix(base + position) & _INT64 for position in positions]
        if tag.single or not (self.takes_seeds or self.reads_batches):
            samples = seed.read(dataset, tag.indices, each)
        else:
            seed(mix(base + tag.start) & _INT64)
            if self.takes_seeds:
                samples = dataset.read_batch(tag.indices, each)
            else:
                samples = dataset.__getitems__(tag.indices)
        if self.collate is not data.default_collate:
            seed(mix(~(base + tag.start)))
        return samples


_INT64 = 2**63 - 1


class _SeededIterable(IterableDataset[Any]):
    """An iterable data set whose generators are seeded by epoch and worker."""

    def __init__(self, dataset: Any, seed: int, name: str):
        self.dataset, self.seed, self.name = dataset, seed, name
        # Shared: workers keep their copy of everything else from epoch to epoch.
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __iter__(self) -> Iterator[Any]:
        worker = data.get_worker_info()
        number = 0 if worker is None else worker.id
        SampleSeeds(self.dataset)(derive(self.seed, self.name, int(self.epoch), number))
        return iter(self.dataset)

    def __len__(self) -> int:
        return len(self.dataset)


class _Tags:
    """The batch sampler given to torch: hands on the tags that the feed set for this epoch."""

    tags: Iterable[Tag] = ()

    def __iter__(self) -> Iterator[Tag]:
        return iter(self.tags)


_END = object()


def _cloned(loader: DataLoader[Any], dataset: Any, **changes: Any) -> DataLoader[Any]:
    """A shallow copy of the user's loader over `dataset`, with workers that persist."""
    clone = copy.copy(loader)
    # DataLoader refuses to set these by name after its construction.
    clone.__dict__.update(
        dataset=dataset,
        persistent_workers=loader.num_workers > 0,
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=partial(_start_worker, loader.worker_init_fn, os.getpid()),
        _iterator=None,
        **changes,
    )
    return clone


def _start_worker(user: Any, main: int, worker_id: int) -> None:
    shield_worker()
    if os.getppid() == 1 != main:
        # The main process was killed already: torch's watchdog would take init for it, for ever.
        os._exit(1)
    if user is not None:
        user(worker_id)


def _same(batch: Any) -> Any:
    return batch


def _counted(collate: Any, many: bool, samples: Any) -> tuple[int | None, Any]:
    return (len(samples) if many else None), collate(samples)


def _draws_nothing(dataset: Any) -> bool:
    """Data sets known to read stored values only, so that seeding them is needless."""
    if type(dataset) is Subset:
        return _draws_nothing(dataset.dataset)
    if type(dataset) is data.ConcatDataset:
        return all(_draws_nothing(part) for part in dataset.datasets)
    return type(dataset) in (TensorDataset, list, tuple, Tensor)


def _reads_batches(dataset: Any) -> bool:
    """Whether a data set has a `__getitems__` of its own; that of Subset only hands on."""
    if isinstance(dataset, Subset):
        return _reads_batches(dataset.dataset)
    return callable(getattr(dataset, "__getitems__", None))


def _attributes(dataset: Any) -> dict[str, Any]:
    """The attributes of a data set: plain values, and the identity of anything else."""
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    plain = (int, float, str, bool, bytes)
    found = getattr(dataset, "__dict__", {})
    return {k: v if isinstance(v, plain) else id(v) for k, v in found.items()}
