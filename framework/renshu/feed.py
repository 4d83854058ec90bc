"""The resumable loader: batches of a user's loader from any position of any epoch, exactly.

A DataLoader is shallow-copied, never rebuilt: workers, pinning, collate function and everything
else stay the user's. What changes is where the indices come from, that every sample is seeded by
its position, and that workers live as long as the fit.
"""

from __future__ import annotations

import copy
import functools
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
    default_collate,
    get_worker_info,
)
from torch.utils.data import _utils as torch_data

from renshu.errors import CheckpointError, DataError
from renshu.messages import say
from renshu.order import PlainOrder, SamplerOrder, Tag
from renshu.seeds import (
    Isolation,
    SampleSeeds,
    derive,
    mix,
    private_states,
    set_private_states,
    walk,
)
from renshu.signals import shield_worker

Item = tuple[Any, int | None]
"""A batch, and how many samples it has where the loader knows."""


class Feed:
    """A list of ready batches; the base of the other feeds.

    `last` is True while the epoch's last batch is out. `limit` cuts an epoch short.
    """

    def __init__(self, loader: Any, *, limit: int | None = None):
        self.loader, self.limit, self.last = loader, limit, False

    @property
    def length(self) -> int | None:
        """Batches an epoch with the limit, or None if unknown."""
        length = self._whole()
        if length is None or self.limit is None:
            return length
        return min(length, self.limit)

    def _whole(self) -> int | None:
        return len(self.loader) if isinstance(self.loader, Sized) else None

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        """What is left of an epoch of which `samples` samples in `batches` batches are consumed."""
        length = self.length or 0
        for number in range(batches, length):
            self.last = number + 1 == length
            yield self.loader[number], None

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def close(self) -> None:
        """End the workers."""


class MapFeed(Feed):
    """Batches of a DataLoader over a map-style data set."""

    def __init__(
        self,
        loader: DataLoader[Any],
        seed: int,
        name: str,
        *,
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        super().__init__(loader, limit=limit)
        self.order: PlainOrder | SamplerOrder
        if PlainOrder.fits(loader):
            self.order = PlainOrder(loader, seed, name, rank, world)
        else:
            self.order = SamplerOrder(loader, seed, name)
        self.fetch = _Fetch(loader.dataset, loader.collate_fn, seed, name)
        self._workers: DataLoader[Any] | None = None
        self._seen: list[Any] = []
        self._lasts: deque[bool] = deque()

    def _whole(self) -> int | None:
        return self.order.length

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        position = batches if self.order.single else samples
        left = None if self.limit is None else max(self.limit - batches, 0)
        if self.loader.num_workers == 0 and self.fetch.whole_tensors(self.order):
            return self._from_tensors(epoch, position, left)
        tags = self._ahead(itertools.islice(self.order.tags(epoch, position), left))
        return self._in_process(tags) if self.loader.num_workers == 0 else self._from_workers(tags)

    def _ahead(self, tags: Iterator[Tag]) -> Iterator[Tag]:
        """Each tag when it is known whether another follows; `_take` hears of it in time."""
        self._lasts.clear()
        tag = next(tags, None)
        while tag is not None:
            following = next(tags, None)
            self._lasts.append(following is None)
            yield tag
            tag = following

    def _take(self) -> None:
        """The loop gets the batch of the oldest tag that is out."""
        self.order.taken()
        self.last = self._lasts.popleft()

    def _from_tensors(self, epoch: int, position: int, left: int | None) -> Iterator[Item]:
        """A TensorDataset with the default collate: one indexing operation a tensor and batch."""
        assert isinstance(self.order, PlainOrder)
        tensors, pin = self.fetch.dataset.tensors, self._pin()
        remaining = self.order.left(position)
        remaining = remaining if left is None else min(remaining, left)
        slices = itertools.islice(self.order.slices(epoch, position), remaining)
        for number, (_, indices) in enumerate(slices, start=1):
            batch = [tensor[indices] for tensor in tensors]
            self.last = number == remaining
            yield (batch if pin is None else pin(batch)), len(indices)

    def _in_process(self, tags: Iterable[Tag]) -> Iterator[Item]:
        fetch, take, pin = self.fetch, self._take, self._pin()
        fetch.forget()
        isolation = None if fetch.draws_nothing else Isolation(keep=False)
        for tag in tags:
            if isolation is None:
                count, batch = fetch(tag)
            else:
                with isolation:
                    count, batch = fetch(tag)
            take()
            yield (batch if pin is None else pin(batch)), count

    def _from_workers(self, tags: Iterable[Tag]) -> Iterator[Item]:
        loader = self._worker_loader()
        loader.batch_sampler.tags = tags  # type: ignore[union-attr]
        for count, batch in loader:
            self._take()
            yield batch, count

    def _worker_loader(self) -> DataLoader[Any]:
        """The user's loader with our data set and order; its workers live until `close`."""
        seen = _seen(self.loader.dataset)
        if self._workers is not None and seen != self._seen:
            say("the data set was changed between epochs, so its workers start again", once=True)
            self.close()
        if self._workers is None:
            self._seen = seen
            self._workers = _with_workers(
                self.loader, self.fetch, batch_sampler=_Tags(), collate_fn=_same
            )
        return self._workers

    def _pin(self) -> Any:
        wanted = self.loader.pin_memory and torch.accelerator.is_available()
        return torch_data.pin_memory.pin_memory if wanted else None

    def state_dict(self) -> dict[str, Any]:
        return self.order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.order.load_state_dict(state)

    def close(self) -> None:
        _shut_down(self._workers)
        self._workers = None


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
        self._wrapped: DataLoader[Any] | None = None
        if _plain_loader(loader) and not hasattr(loader, "load_state_dict"):
            self._wrapped = self._wrap(loader)
            self._layout = [loader.num_workers, loader.batch_size]
            self.owner = loader.dataset if loader.num_workers == 0 else None
        self._stateful = hasattr(self.owner, "load_state_dict")
        self._total = 0
        self._resume: dict[str, Any] = {}
        # The batch that is out, and the one before: a save inside a step has not consumed it yet.
        self._taken: deque[dict[str, Any]] = deque(maxlen=2)

    def _wrap(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        dataset = _SeededIterable(loader.dataset, self.seed, self.name)
        counted = functools.partial(_counted, loader.collate_fn, loader.batch_size is not None)
        return _with_workers(loader, dataset, collate_fn=counted)

    def _whole(self) -> int | None:
        try:
            return len(self.loader)
        except (TypeError, NotImplementedError):
            return None

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        resume, self._resume = self._resume, {}
        source = self._start(epoch, batches, resume)
        item = None if batches == self.limit else self._pull(source)
        if item is None and epoch and not batches:
            raise DataError(
                f"the loader gave no batch in epoch {epoch}",
                where=self.name,
                allowed="an iterable that begins anew; a generator can be read only once",
            )
        while item is not None:
            batches += 1
            state = self._state(batches, _has_ended(source))
            following = None if batches == self.limit else self._pull(source)
            self.last = following is None
            self._taken.append(state)
            yield item
            item = following

    def _start(self, epoch: int, batches: int, resume: dict[str, Any]) -> Iterator[Item]:
        """The epoch's items after its first `batches`."""
        self._taken.clear()
        found = [entry for entry in resume.get("taken", ()) if entry["batches"] == batches]
        if resume and isinstance(self.loader, Iterator):
            # It goes on from epoch to epoch: all it ever gave is read again.
            entries = [*found, *reversed(resume["taken"])]
            batches = entries[0]["total"] if entries else 0
        elif resume and resume["epoch"] < epoch and self._stateful and resume["taken"]:
            # Its end of the epoch before, which the run that is resumed has seen.
            self._pull(self._restored(resume["epoch"], resume["taken"][-1]))
        if found and self._stateful:
            return self._restored(epoch, found[0])
        if resume and resume["layout"] != self._layout:
            raise CheckpointError(
                "an iterable data set continues with the same workers and batch size only",
                where=self.name,
                allowed="num_workers={}, batch_size={}".format(*resume["layout"]),
                mend="or give the data set state_dict and load_state_dict, and no workers",
            )
        source = self._open(epoch)
        if batches:
            say(f"{self.name}: reading {batches} batches again to come back to where the run was")
        for _ in range(batches):
            self._pull(source)
        return source

    def _open(self, epoch: int) -> Iterator[Item]:
        self._epoch, one_shot = epoch, isinstance(self.loader, Iterator)
        if not one_shot:
            self.isolation.seed(derive(self.seed, self.name, epoch))
        elif not self._total:
            self.isolation.seed(derive(self.seed, self.name))
        with self.isolation:
            if self._wrapped is not None:
                self._wrapped.dataset.epoch.fill_(epoch)  # type: ignore[attr-defined]
                return iter(self._wrapped)
            if not one_shot:
                SampleSeeds(self.loader)(derive(self.seed, self.name, epoch))
            return iter(self.loader)

    def _restored(self, epoch: int, entry: dict[str, Any]) -> Iterator[Item]:
        self.owner.load_state_dict(entry["stateful"])
        source = self._open(epoch)
        self.isolation.load(entry["random"])
        set_private_states(self.owner, entry["private"])
        return iter(()) if entry["ended"] else source

    def _pull(self, source: Iterator[Any]) -> Item | None:
        with self.isolation:
            item: Any = next(source, _END)
        if item is _END:
            return None
        self._total += 1
        return (item[1], item[0]) if self._wrapped is not None else (item, None)

    def _state(self, batches: int, ended: bool) -> dict[str, Any]:
        state = {"batches": batches, "total": self._total, "ended": ended}
        if not self._stateful:
            return state
        random, private = self.isolation.dump(), private_states(self.owner)
        stateful = self.owner.state_dict()
        return {**state, "stateful": stateful, "random": random, "private": private}

    def state_dict(self) -> dict[str, Any]:
        if self._resume or not self._taken:
            return self._resume
        return {"epoch": self._epoch, "layout": self._layout, "taken": list(self._taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = state

    def close(self) -> None:
        _shut_down(self._wrapped)


def make_feed(
    loader: Any, seed: int, name: str, *, limit: int | None = None, rank: int = 0, world: int = 1
) -> Feed:
    """The feed for a loader: a DataLoader, or anything that can be iterated over."""
    if isinstance(loader, (list, tuple)):
        return Feed(loader, limit=limit)
    if _plain_loader(loader) and not isinstance(loader.dataset, IterableDataset):
        return MapFeed(loader, seed, name, limit=limit, rank=rank, world=world)
    if not isinstance(loader, Iterable) or isinstance(loader, (Mapping, str)):
        raise DataError(
            f"{type(loader).__name__} is not a loader",
            where=name,
            allowed="a DataLoader, or a list or other iterable of batches",
        )
    return IterableFeed(loader, seed, name, limit=limit)


def _plain_loader(loader: Any) -> bool:
    """Whether a loader is a DataLoader that iterates as DataLoader does."""
    return isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__


class _Fetch(Dataset[Any]):
    """Tag → (count, batch), with every sample seeded by its position. Runs in workers as well."""

    def __init__(self, dataset: Any, collate: Any, seed: int, name: str):
        self.dataset, self.collate, self.seed, self.name = dataset, collate, seed, name
        self.draws_nothing = _draws_nothing(dataset) and collate is default_collate
        self.reads_batches = _reads_batches(dataset)
        if self.reads_batches and not self.draws_nothing:
            say("the data set reads whole batches: its random draws repeat per batch", once=True)
        self._seeds: SampleSeeds | None = None
        self._base: tuple[int, int] | None = None

    def whole_tensors(self, order: PlainOrder | SamplerOrder) -> bool:
        """Whether batches can be cut from whole tensors."""
        return (
            type(self.dataset) is TensorDataset
            and self.draws_nothing
            and isinstance(order, PlainOrder)
            and not order.single
        )

    def __call__(self, tag: Tag) -> tuple[int | None, Any]:
        if self.draws_nothing:
            samples = self._read(tag.indices)
        else:
            samples = self._read_seeded(tag)
        if tag.single:
            return None, self.collate(samples[0])
        return len(tag.indices), self.collate(samples)

    # The name that torch's fetcher calls with what the batch sampler gave.
    __getitems__ = __call__

    def _read(self, indices: Any) -> Any:
        many = getattr(self.dataset, "__getitems__", None)
        return [self.dataset[index] for index in indices] if many is None else many(indices)

    def _read_seeded(self, tag: Tag) -> Any:
        if self._base is None or self._base[0] != tag.epoch:
            self._base = tag.epoch, derive(self.seed, self.name, tag.epoch)
        if self._seeds is not None:
            return self._read_with(self._seeds, tag)
        self._seeds = seeds = SampleSeeds(self.dataset, self.collate)
        samples = self._read_with(seeds, tag)
        self._seeds = SampleSeeds(self.dataset, self.collate)
        if len(self._seeds) > len(seeds):
            # Generators were made while reading, and have drawn unseeded.
            samples = self._read_with(self._seeds, tag)
        return samples

    def _read_with(self, seeds: SampleSeeds, tag: Tag) -> Any:
        assert self._base is not None
        base, dataset = self._base[1], self.dataset
        if self.reads_batches and not tag.single:
            seeds(mix(base + tag.start))
            samples = dataset.__getitems__(tag.indices)
        else:
            samples, position = [], tag.start
            for index in tag.indices:
                seeds(mix(base + position))
                samples.append(dataset[index])
                position += tag.stride
        seeds(mix(~(base + tag.start)))
        return samples

    def forget(self) -> None:
        """Look for generators anew: the data set may have been changed between epochs."""
        self._seeds = None

    def __getstate__(self) -> dict[str, Any]:
        # Found anew in each worker: the setters belong to the worker's copy of the data set.
        return {**self.__dict__, "_seeds": None}


class _SeededIterable(IterableDataset[Any]):
    """An iterable data set whose generators are seeded by epoch and worker."""

    def __init__(self, dataset: Any, seed: int, name: str):
        self.dataset, self.seed, self.name = dataset, seed, name
        # Shared: workers keep their copy of everything else from epoch to epoch.
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
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


def _with_workers(loader: DataLoader[Any], dataset: Any, **changes: Any) -> DataLoader[Any]:
    """A shallow copy of the user's loader over `dataset`, with workers that persist."""
    clone = copy.copy(loader)
    # DataLoader refuses to set these by name after its construction.
    clone.__dict__.update(
        dataset=dataset,
        persistent_workers=loader.num_workers > 0,
        generator=torch.Generator().manual_seed(0),
        worker_init_fn=functools.partial(_start_worker, loader.worker_init_fn, os.getpid()),
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


def _shut_down(loader: DataLoader[Any] | None) -> None:
    iterator = getattr(loader, "_iterator", None)
    if iterator is not None and hasattr(iterator, "_shutdown_workers"):
        iterator._shutdown_workers()
        loader.__dict__["_iterator"] = None


def _same(batch: Any) -> Any:
    return batch


def _counted(collate: Any, many: bool, samples: Any) -> tuple[int | None, Any]:
    return (len(samples) if many else None), collate(samples)


def _draws_nothing(dataset: Any) -> bool:
    """Data sets known to read stored values only, so that seeding them is needless."""
    if type(dataset) is Subset:
        return _draws_nothing(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return all(_draws_nothing(part) for part in dataset.datasets)
    return type(dataset) in (TensorDataset, list, tuple, Tensor)


def _reads_batches(dataset: Any) -> bool:
    """Whether a data set has a `__getitems__` of its own; that of Subset only hands on."""
    if isinstance(dataset, Subset):
        return _reads_batches(dataset.dataset)
    return callable(getattr(dataset, "__getitems__", None))


def _has_ended(source: Any) -> bool:
    """Whether a DataLoader's iterator has seen the end of its data set, as a short batch shows."""
    return getattr(getattr(source, "_dataset_fetcher", None), "ended", False)


def _seen(dataset: Any) -> list[Any]:
    """What a data set and its transforms hold: plain values, the identity of anything else."""
    plain = (int, float, str, bool, bytes, type(None))
    found: list[Any] = []
    for item in walk(dataset, depth=4):
        attributes = getattr(item, "__dict__", None)
        if isinstance(attributes, dict) and not isinstance(item, FunctionType):
            for key, value in attributes.items():
                changes = (value._version,) if type(value) is Tensor else ()
                found.append((key, value if isinstance(value, plain) else id(value), *changes))
    return found
