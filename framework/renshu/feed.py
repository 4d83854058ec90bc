"""The resumable loader: batches of a user's loader from any position of any epoch, exactly.

A DataLoader is shallow-copied, never rebuilt: workers, pinning, collate function and everything
else stay the user's. What changes is where the indices come from, that every sample is seeded by
its position, and that workers live as long as the fit.
"""

from __future__ import annotations

import copy
import functools
import itertools
import signal
from collections.abc import Iterable, Iterator, Sized
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

from renshu.errors import DataError
from renshu.messages import say
from renshu.order import PlainOrder, SamplerOrder, Tag
from renshu.seeds import Isolation, SampleSeeds, derive, mix, seed_globals

Item = tuple[Any, int | None]
"""A batch, and how many samples it has where the loader knows."""


class Feed:
    """Batches of any iterable; the base of the feeds for DataLoaders.

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
        end = self.limit
        if isinstance(self.loader, (list, tuple)):
            length = len(self.loader) if end is None else min(len(self.loader), end)
            for number in range(batches, length):
                self.last = number + 1 == length
                yield self.loader[number], None
        else:
            items = ((batch, None) for batch in itertools.islice(self.loader, batches, end))
            yield from self._ahead(items)

    def _ahead(self, items: Iterable[Item]) -> Iterator[Item]:
        """Look one batch ahead, so that an epoch of unknown length knows its last one."""
        self.last = False
        held: Item | None = None
        for item in items:
            if held is not None:
                yield held
            held = item
        self.last = True
        if held is not None:
            yield held

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
        self._seen: dict[str, Any] = {}

    def _whole(self) -> int | None:
        return self.order.length

    def epoch(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        length = self.length
        if length is None:
            yield from self._ahead(self._items(epoch, samples, batches))
            return
        self.last = batches >= length
        for number, item in enumerate(self._items(epoch, samples, batches), start=batches + 1):
            self.last = number == length
            yield item

    def _items(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        if self.loader.num_workers == 0 and self.fetch.whole_tensors(self.order):
            return self._from_tensors(epoch, samples, batches)
        tags = self.order.tags(epoch, samples)
        if self.limit is not None:
            tags = itertools.islice(tags, max(self.limit - batches, 0))
        if self.loader.num_workers == 0:
            return self._in_process(tags)
        return self._from_workers(tags)

    def _from_tensors(self, epoch: int, samples: int, batches: int) -> Iterator[Item]:
        """A TensorDataset with the default collate: one indexing operation a tensor and batch."""
        assert isinstance(self.order, PlainOrder)
        tensors = self.fetch.dataset.tensors
        slices = self.order.slices(epoch, samples)
        if self.limit is not None:
            slices = itertools.islice(slices, max(self.limit - batches, 0))
        pin = self._pin()
        for _, indices in slices:
            batch = [tensor[indices] for tensor in tensors]
            yield (batch if pin is None else pin(batch)), len(indices)

    def _in_process(self, tags: Iterable[Tag]) -> Iterator[Item]:
        fetch, taken, pin = self.fetch, self.order.taken, self._pin()
        isolation = None if fetch.draws_nothing else Isolation()
        for tag in tags:
            if isolation is None:
                count, batch = fetch(tag)
            else:
                with isolation:
                    count, batch = fetch(tag)
            taken()
            yield (batch if pin is None else pin(batch)), count

    def _from_workers(self, tags: Iterable[Tag]) -> Iterator[Item]:
        loader = self._worker_loader()
        loader.batch_sampler.tags = tags  # type: ignore[union-attr]
        for count, batch in loader:
            self.order.taken()
            yield batch, count

    def _worker_loader(self) -> DataLoader[Any]:
        """The user's loader with our data set and order; its workers live until `close`."""
        seen = _shallow(self.loader.dataset)
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
    """Batches of a DataLoader over an iterable data set, or of another loader with a `state_dict`.

    It resumes through `state_dict` of the loader or (without workers) of the data set; else what
    was consumed is read again and dropped, which is exact for the same number of workers only.
    """

    def __init__(self, loader: Any, seed: int, name: str, *, limit: int | None = None):
        super().__init__(loader, limit=limit)
        self.seed, self.name, self.isolation = seed, name, Isolation()
        plain = isinstance(loader, DataLoader) and not hasattr(loader, "state_dict")
        in_process = plain and loader.num_workers == 0
        self.stateful: Any = None if plain and not in_process else loader
        if in_process:
            self.stateful = loader.dataset
        if not hasattr(self.stateful, "load_state_dict"):
            self.stateful = None
        self._wrapped = self._wrap(loader) if plain else None
        self._resume: dict[str, Any] = {}
        self._taken: Any = None

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
        skip = batches
        self.isolation.seed(derive(self.seed, self.name, epoch))
        if batches and self.stateful is not None and resume:
            self.stateful.load_state_dict(resume["stateful"])
            self.isolation.load(resume["random"])
            skip = 0
        elif batches:
            say(f"{self.name}: reading {batches} batches again to come back to where the run was")
        if self._wrapped is not None:
            self._wrapped.dataset.start(epoch)  # type: ignore[attr-defined]
        self.last = False
        held: tuple[Item, Any] | None = None
        left = None if self.limit is None else self.limit - batches
        for number, item in enumerate(itertools.islice(self._draw(), skip, None)):
            if number == left:
                break
            if held is not None:
                self._taken = held[1]
                yield held[0]
            held = item, self._state()
        self.last = True
        if held is not None:
            self._taken = held[1]
            yield held[0]

    def _draw(self) -> Iterator[Item]:
        with self.isolation:
            source = iter(self.loader if self._wrapped is None else self._wrapped)
        while True:
            with self.isolation:
                item: Any = next(source, _END)
            if item is _END:
                return
            yield (item[1], item[0]) if self._wrapped is not None else (item, None)

    def _state(self) -> Any:
        if self.stateful is None:
            return None
        return {"stateful": self.stateful.state_dict(), "random": self.isolation.dump()}

    def state_dict(self) -> dict[str, Any]:
        return self._taken or {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resume = state

    def close(self) -> None:
        _shut_down(self._wrapped)


def make_feed(
    loader: Any, seed: int, name: str, *, limit: int | None = None, rank: int = 0, world: int = 1
) -> Feed:
    """The feed for a loader: a DataLoader, or anything that can be iterated over again."""
    if isinstance(loader, DataLoader) and type(loader).__iter__ is DataLoader.__iter__:
        if isinstance(loader.dataset, IterableDataset):
            return IterableFeed(loader, seed, name, limit=limit)
        return MapFeed(loader, seed, name, limit=limit, rank=rank, world=world)
    if hasattr(loader, "load_state_dict"):
        return IterableFeed(loader, seed, name, limit=limit)
    if not isinstance(loader, Iterable):
        raise DataError(
            f"{type(loader).__name__} is not a loader",
            where=name,
            allowed="a DataLoader, or a list or other iterable of batches",
        )
    return Feed(loader, limit=limit)


class _Fetch(Dataset[Any]):
    """Tag → (count, batch), with every sample seeded by its position. Runs in workers as well."""

    def __init__(self, dataset: Any, collate: Any, seed: int, name: str):
        self.dataset, self.collate, self.seed, self.name = dataset, collate, seed, name
        self.draws_nothing = _draws_nothing(dataset) and collate is default_collate
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
        if self._seeds is None:
            self._seeds = SampleSeeds(self.dataset, self.collate)
        if self._base is None or self._base[0] != tag.epoch:
            self._base = tag.epoch, derive(self.seed, self.name, tag.epoch)
        base, seeds, dataset = self._base[1], self._seeds, self.dataset
        if not tag.single and getattr(dataset, "__getitems__", None) is not None:
            say("the data set reads whole batches: its random draws repeat per batch", once=True)
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

    def __getstate__(self) -> dict[str, Any]:
        # Found anew in each worker: the setters belong to the worker's copy of the data set.
        return {**self.__dict__, "_seeds": None}


class _SeededIterable(IterableDataset[Any]):
    """An iterable data set whose generators are seeded by epoch and worker."""

    def __init__(self, dataset: Any, seed: int, name: str):
        self.dataset, self.seed, self.name = dataset, seed, name
        self.epoch = 0

    def start(self, epoch: int) -> None:
        """Workers keep their copy: the first sees this epoch, and counts on by itself."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is not None:
            seed_globals(derive(self.seed, self.name, self.epoch, worker.id))
            self.epoch += 1
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
        worker_init_fn=functools.partial(_start_worker, loader.worker_init_fn),
        _iterator=None,
        **changes,
    )
    return clone


def _start_worker(user: Any, worker_id: int) -> None:
    # Ctrl-C reaches the whole group; the main process decides what happens then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
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


def _shallow(dataset: Any) -> dict[str, Any]:
    """The attributes of a data set, by value where plain and by identity else."""
    plain = (int, float, str, bool, bytes, type(None))
    attributes = getattr(dataset, "__dict__", {})
    return {k: v if isinstance(v, plain) else id(v) for k, v in attributes.items()}
