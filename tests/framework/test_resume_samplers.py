"""Resuming with loaders of the user's own making: samplers, batch samplers, iterables, lists."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    default_collate,
)

from killing import Net, Noisy, check_exact, fit, in_child, killed_and_resumed, lines, note, same
from renshu.errors import DataError
from renshu.feed import make_feed

SIZE = 22  # batches of 4: 6 an epoch, the last with 2


class Drawing(Sampler[int]):
    """Draws each index from one of the global generators, when it is asked for it."""

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        for number in range(SIZE):
            drawn = int(torch.randint(SIZE, ())), np.random.randint(SIZE), random.randrange(SIZE)
            yield int(drawn[number % 3])


class OwnNumpy(Drawing):
    """Draws from a numpy generator that it keeps."""

    def __init__(self) -> None:
        self.generator = np.random.default_rng()

    def __iter__(self) -> Iterator[int]:
        return iter(self.generator.permutation(SIZE).tolist())


class Stateful(Drawing):
    """Goes on where it is; its order depends on how often it began, and on nothing else."""

    def __init__(self) -> None:
        self.rounds, self.next = 0, 0

    def __iter__(self) -> Iterator[int]:
        order = np.random.RandomState(self.rounds).permutation(SIZE)
        while self.next < SIZE:
            self.next += 1
            yield int(order[self.next - 1])
        self.rounds, self.next = self.rounds + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"rounds": self.rounds, "next": self.next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.rounds, self.next = state["rounds"], state["next"]


class SkipsOnce(Drawing):
    """After load_state_dict the next iteration is short; all others are whole."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(3)
        self.yielded, self.skip, self.before = 0, 0, self.generator.get_state()

    def __iter__(self) -> Iterator[int]:
        self.before = self.generator.get_state()
        order = torch.randperm(SIZE, generator=self.generator).tolist()
        skip, self.skip = self.skip, 0
        for number in range(skip, SIZE):
            self.yielded = number + 1
            yield order[number]

    def state_dict(self) -> dict[str, Any]:
        return {"yielded": self.yielded, "generator": self.before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skip, self.before = state["yielded"], state["generator"]
        self.generator.set_state(self.before)


class Counting(Drawing):
    """Its order depends on a count that nobody can ask for."""

    def __init__(self) -> None:
        self.count = 0

    def __iter__(self) -> Iterator[int]:
        self.count += 1
        return iter(np.random.RandomState(self.count).permutation(SIZE).tolist())


class Endless(Drawing):
    def __iter__(self) -> Iterator[int]:
        while True:
            yield int(torch.randint(SIZE, ()))


class Buckets(Sampler[list[int]]):
    """A batch sampler with batches of 2, 3, 4, 5, 2 … random samples."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(6):
            yield torch.randint(SIZE, (2 + number % 4,)).tolist()


class EpochSampler(Drawing):
    """The common recipe: the epoch, told by set_epoch, seeds the order."""

    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.RandomState(self.epoch).permutation(SIZE).tolist())


def noisy_collate(samples: list[Any]) -> Any:
    ids, x = default_collate(samples)
    return ids, x + torch.randn_like(x) + float(np.random.randn()) * random.random()


def _sampled(make: Callable[[], Any], **options: Any) -> Callable[..., DataLoader[Any]]:
    def loader(workers: int) -> DataLoader[Any]:
        prefetch = {"prefetch_factor": 4} if workers else {}
        return DataLoader(
            Noisy(SIZE), num_workers=workers, **{"batch_size": 4, **prefetch, **options}, **make()
        )

    return loader


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(17)


WEIGHTS = torch.arange(1.0, SIZE + 1)
LOADERS: dict[str, Callable[..., DataLoader[Any]]] = {
    "RandomSampler with a generator": _sampled(
        lambda: {"sampler": RandomSampler(range(SIZE), generator=_generator())}
    ),
    "RandomSampler with replacement": _sampled(
        lambda: {"sampler": RandomSampler(range(SIZE), replacement=True, num_samples=23)}
    ),
    "WeightedRandomSampler": _sampled(lambda: {"sampler": WeightedRandomSampler(WEIGHTS, 23)}),
    "WeightedRandomSampler with a generator": _sampled(
        lambda: {"sampler": WeightedRandomSampler(WEIGHTS, 23, generator=_generator())}
    ),
    "SubsetRandomSampler": _sampled(lambda: {"sampler": SubsetRandomSampler(range(3, 22))}),
    "DistributedSampler": _sampled(
        lambda: {"sampler": DistributedSampler(Noisy(SIZE), num_replicas=2, rank=1)}, batch_size=2
    ),
    "global generators": _sampled(lambda: {"sampler": Drawing()}),
    "own numpy generator": _sampled(lambda: {"sampler": OwnNumpy()}),
    "state_dict": _sampled(lambda: {"sampler": Stateful()}),
    "state_dict that skips once": _sampled(lambda: {"sampler": SkipsOnce()}),
    "set_epoch": _sampled(lambda: {"sampler": EpochSampler()}),
    "drop_last": _sampled(lambda: {"sampler": Drawing()}, drop_last=True),
    "plain drop_last": _sampled(lambda: {"shuffle": True}, drop_last=True),
    "batch_sampler": lambda workers: DataLoader(
        Noisy(SIZE), batch_sampler=Buckets(), num_workers=workers
    ),
    "torch's BatchSampler": lambda workers: DataLoader(
        Noisy(SIZE), batch_sampler=BatchSampler(Drawing(), 4, False), num_workers=workers
    ),
    "collate that draws": _sampled(lambda: {"shuffle": True, "collate_fn": noisy_collate}),
    "persistent workers": lambda workers: DataLoader(
        Noisy(SIZE), 4, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    ),
}


Place = tuple[int, int, int, dict[str, Any]]


def _read(feed: Any, place: Place = (0, 0, 0, {}), epochs: int = 3) -> list[tuple[Any, Place]]:
    """The batches from a place on, each with the place after it, as the loop counts it."""
    epoch, samples, batches, state = place
    if state:
        feed.load_state_dict(copy.deepcopy(state))
    found = []
    for number in range(epoch, epochs):
        for batch, count in feed.epoch(number, samples, batches):
            samples, batches = samples + (count or 0), batches + 1
            here = (number + 1, 0, 0) if feed.last else (number, samples, batches)
            found.append(([part.tolist() for part in batch], (*here, feed.state_dict())))
        samples = batches = 0
    return found


def _check_every_place(make: Callable[[], Any], **options: Any) -> None:
    """From every place a new feed gives the batches that were still to come, and no others."""

    def feed() -> Any:
        return make_feed(make(), 5, "train", **options)

    whole = _read(feed())
    before: Any = (0, 0, 0)
    for number, (_, place) in enumerate(whole):
        rest = [batch for batch, _ in whole[number:]]
        assert [batch for batch, _ in _read(feed(), place)] == rest[1:]
        # A save inside the step: this batch is out, and not yet consumed.
        if place[0] == before[0]:
            assert [batch for batch, _ in _read(feed(), (*before, place[3]))] == rest
        before = place[:3]


# pains/trainer.md rows 1, 15
@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_of_the_users_goes_on_from_every_place(name: str) -> None:
    _check_every_place(lambda: LOADERS[name](0))


# pains/trainer.md rows 1, 15: inside an epoch, and where one has just ended
@pytest.mark.slow
@pytest.mark.parametrize("save", [9, 12])
@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_of_the_users_resumes_exactly(name: str, save: int) -> None:
    loader = LOADERS[name]
    save = min(save, 10) if "drop_last" in name else save
    check_exact(save, loader=lambda: loader(0), max_epochs=3)


# pains/trainer.md row 1: the sampler is up to 8 batches ahead of what was consumed
@pytest.mark.slow
@pytest.mark.parametrize("save", [9, 12])
@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_of_the_users_resumes_exactly_with_workers(name: str, save: int) -> None:
    loader = LOADERS[name]
    whole = in_child(lambda: fit(lambda: loader(0), run="whole", max_epochs=3))
    parts = killed_and_resumed(save, loader=lambda: loader(2), max_epochs=3)
    assert same(whole, parts)


# pains/trainer.md row 1: kept fast for every run of the tests
@pytest.mark.parametrize("name", ["state_dict", "global generators", "batch_sampler"])
def test_prefetching_does_not_move_the_place_of_a_resume(name: str) -> None:
    loader = LOADERS[name]
    whole = in_child(lambda: fit(lambda: loader(0), run="whole", max_epochs=2))
    assert same(whole, killed_and_resumed(8, loader=lambda: loader(2), max_epochs=2))


# pains/trainer.md rows 1, 15
@pytest.mark.parametrize("make", [Endless, Stateful, Drawing, OwnNumpy])
def test_a_sampler_goes_on_with_a_limit_of_batches(make: Callable[[], Any]) -> None:
    _check_every_place(lambda: _sampled(lambda: {"sampler": make()})(0), limit=4)


# pains/trainer.md row 15
@pytest.mark.parametrize("save", [8, 14])
def test_an_order_that_cannot_be_repeated_is_refused(
    save: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AssertionError):
        killed_and_resumed(save, loader=lambda: _sampled(lambda: {"sampler": Counting()})(0))
    assert "Counting gave other indices than before the interruption" in capfd.readouterr().err


class Single(Dataset[Any]):
    """Samples that are batches already, of changing size."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        size = 2 + index % 3
        return torch.full((size,), index), torch.randn(size, 4)


# pains/trainer.md row 1
@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": range(6, -1, -1)}])
def test_batch_size_none_resumes_exactly(options: dict[str, Any]) -> None:
    def loader() -> Any:
        return DataLoader(Single(), batch_size=None, **options)

    _check_every_place(loader)
    check_exact(9, loader=loader, max_epochs=2)


# pains/trainer.md row 1
@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": "drawing"}])
def test_another_batch_size_goes_on_at_the_same_sample(
    options: dict[str, Any], run_dir: Path
) -> None:
    if "sampler" in options:
        options = {"sampler": Drawing()}
    seen = run_dir / "seen"

    def run(batch: int) -> Callable[..., Any]:
        def go(**given: Any) -> Any:
            make = lambda: DataLoader(Noisy(SIZE), batch_size=batch, **options)  # noqa: E731
            return fit(make, lambda: Net(seen), max_epochs=1, **given)

        return go

    from killing import SaveThenKill

    in_child(lambda: run(3)(run="whole", limit_train_batches=100))
    whole = _ids(lines(seen))
    seen.unlink()
    in_child(lambda: run(3)(run="parts", callbacks=lambda: [SaveThenKill(3, 0)]), killed=True)
    in_child(lambda: run(5)(run="parts", resume="last"))
    after = lines(seen)[3:]
    assert _ids(lines(seen)) == whole
    assert [len(_ids([line])) for line in after] == [5, 5, 3]


def _ids(notes: list[str]) -> list[int]:
    return [int(word) for line in notes for word in line.split("[")[1].strip("]").split(", ")]


# pains/trainer.md row 1
def test_another_batch_size_cuts_the_same_samples_with_drop_last() -> None:
    loader = DataLoader(Noisy(23), batch_size=5, drop_last=True)
    batches = [batch[0].tolist() for batch, _ in make_feed(loader, 1, "train").epoch(0, 8, 2)]
    assert batches == [[8, 9, 10, 11, 12], [13, 14, 15, 16, 17], [18, 19, 20, 21, 22]]


class Stream(IterableDataset[Any]):
    """Every sample depends on the global generators; workers share the range."""

    def __init__(self, length: int | None = None):
        self.length = length
        self.rng = np.random.default_rng()

    def __iter__(self) -> Iterator[Any]:
        info = torch.utils.data.get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(start, SIZE, step):
            yield number, torch.randn(4) + self.rng.random() + float(np.random.randn())


class SizedStream(Stream):
    def __len__(self) -> int:
        return self.length or SIZE


class StatefulStream(IterableDataset[Any]):
    def __init__(self, reads: Path | None = None) -> None:
        self.next, self.rounds, self.reads = 0, 0, reads

    def __iter__(self) -> Iterator[Any]:
        while self.next < SIZE:
            self.next += 1
            if self.reads:
                note(self.reads, f"{self.rounds} {self.next}")
            yield self.next, torch.randn(4) * (self.rounds + 1)
        self.next, self.rounds = 0, self.rounds + 1

    def state_dict(self) -> dict[str, int]:
        return {"next": self.next, "rounds": self.rounds}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.next, self.rounds = state["next"], state["rounds"]


class Iterated:
    """Not a DataLoader: something that can be iterated over, and draws random numbers."""

    def __iter__(self) -> Iterator[Any]:
        for number in range(5):
            yield torch.tensor([number] * 3), torch.randn(3, 4) + float(np.random.randn())


class Subclass(DataLoader[Any]):
    """A DataLoader that does something to every batch."""

    def __iter__(self) -> Iterator[Any]:
        for ids, x in super().__iter__():
            yield ids, x + torch.randn(4)


READY = [(torch.arange(3), torch.randn(3, 4, generator=_generator())) for _ in range(5)]


ITERABLES: dict[str, Callable[[], Any]] = {
    "iterable set": lambda: DataLoader(Stream(), batch_size=4),
    "its length is too long": lambda: DataLoader(SizedStream(100), batch_size=4),
    "with state_dict": lambda: DataLoader(StatefulStream(), batch_size=4),
    "list of ready batches": lambda: list(READY),
    "an iterable": Iterated,
    "a DataLoader with its own __iter__": lambda: Subclass(Noisy(SIZE), 4, shuffle=True),
}


# pains/trainer.md rows 1, 39
@pytest.mark.parametrize("name", ITERABLES)
def test_an_iterable_goes_on_from_every_place(name: str) -> None:
    _check_every_place(ITERABLES[name])
    _check_every_place(ITERABLES[name], limit=3)


# pains/trainer.md rows 1, 39: kept fast for every run of the tests
@pytest.mark.parametrize("name", ["with state_dict", "an iterable"])
def test_an_iterable_resumes_exactly(name: str) -> None:
    check_exact(8, loader=ITERABLES[name], max_epochs=3, accumulate_grad_batches=2)


# pains/trainer.md rows 1, 39
@pytest.mark.slow
@pytest.mark.parametrize("save", [3, 10, 12])
@pytest.mark.parametrize("name", ITERABLES)
def test_every_iterable_resumes_exactly(name: str, save: int) -> None:
    save = min(save, 10) if name in ("list of ready batches", "an iterable") else save
    check_exact(save, loader=ITERABLES[name], max_epochs=3, accumulate_grad_batches=2)


# pains/trainer.md row 1
def test_an_iterable_set_with_two_workers_resumes_exactly() -> None:
    check_exact(8, loader=lambda: DataLoader(Stream(), 4, num_workers=2), max_epochs=2)


# pains/trainer.md row 1
def test_an_iterable_set_with_another_number_of_workers_is_refused(
    capfd: pytest.CaptureFixture[str],
) -> None:
    from killing import SaveThenKill

    one, two = (lambda n=n: DataLoader(Stream(), 4, num_workers=n) for n in (1, 2))
    in_child(lambda: fit(one, run="r", callbacks=lambda: [SaveThenKill(3)]), killed=True)
    with pytest.raises(AssertionError):
        in_child(lambda: fit(two, run="r", resume="last"))
    assert "num_workers=1, batch_size=4" in capfd.readouterr().err


# pains/trainer.md row 14
def test_an_iterable_set_with_state_dict_reads_nothing_again(run_dir: Path) -> None:
    reads = run_dir / "reads"
    killed_and_resumed(
        4, later=0, loader=lambda: DataLoader(StatefulStream(reads), batch_size=4), max_epochs=1
    )
    # 16 samples are consumed, one batch is read ahead: those 4 are read by both processes.
    assert len(lines(reads)) == 20 + (SIZE - 16)


class Once(IterableDataset[Any]):
    """Wraps a generator, which can be read once."""

    def __init__(self) -> None:
        self.samples = (sample for sample in [torch.ones(4)] * 8)

    def __iter__(self) -> Iterator[Any]:
        return self.samples


def test_an_iterable_set_that_has_ended_is_refused_in_the_next_epoch() -> None:
    feed = make_feed(DataLoader(Once(), 4), 1, "train")
    assert len(list(feed.epoch(0, 0, 0))) == 2
    with pytest.raises(DataError, match="can be read only once"):
        list(feed.epoch(1, 0, 0))


@pytest.mark.parametrize("wrong", [{"a": DataLoader(Noisy(4))}, "text", 3, iter(READY)])
def test_what_is_no_loader_is_refused(wrong: Any) -> None:
    with pytest.raises(DataError, match="is not a loader"):
        make_feed(wrong, 1, "train")


# pains/trainer.md row 39
@pytest.mark.parametrize(("says", "gives"), [(3, 5), (8, 5)])
def test_a_sampler_with_a_wrong_length_is_read_to_its_end(says: int, gives: int) -> None:
    class Wrong(Sampler[list[int]]):
        def __len__(self) -> int:
            return says

        def __iter__(self) -> Iterator[list[int]]:
            return iter([[number, number + 1] for number in range(gives)])

    feed = make_feed(DataLoader(Noisy(SIZE), batch_sampler=Wrong()), 1, "train")
    lasts = [feed.last for _ in feed.epoch(0, 0, 0)]
    assert lasts == [False] * (gives - 1) + [True]


def test_the_users_loader_is_not_changed() -> None:
    generator = _generator()
    loader = DataLoader(
        Noisy(SIZE), 4, sampler=RandomSampler(range(SIZE), generator=generator), num_workers=0
    )
    before, state = dict(vars(loader)), generator.get_state()
    feed = make_feed(loader, 1, "train")
    for epoch in range(2):
        assert len(list(feed.epoch(epoch, 0, 0))) == 6
    assert vars(loader) == before
    assert torch.equal(generator.get_state(), state)
    assert sorted(int(i) for ids, _ in loader for i in ids) == list(range(SIZE))


def _tensor(batch: Any) -> Tensor:
    return batch[1]


def test_a_loader_with_workers_can_be_iterated_over_after_a_fit() -> None:
    loader = DataLoader(Noisy(SIZE), 4, shuffle=True, num_workers=1)
    feed = make_feed(loader, 1, "train")
    assert len(list(feed.epoch(0, 0, 0))) == 6
    feed.close()
    assert loader.persistent_workers is False
    assert sorted(int(i) for ids, _ in loader for i in ids) == list(range(SIZE))
