"""Random draws in data sets: by sample, epoch and seed, and by nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from renshu.feed import make_feed
from renshu.seeds import Isolation, derive, private_states, run_seed, set_private_states

SIZE = 12
# Three workers on a machine with two cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class MonaiLike:
    """The protocol of MONAI's Randomizable."""

    def __init__(self) -> None:
        self.R = np.random.RandomState()

    def set_random_state(self, seed: int | None = None, state: Any = None) -> MonaiLike:
        self.R = np.random.RandomState(seed) if state is None else state
        return self

    def __call__(self) -> float:
        return float(self.R.uniform())


class AlbumentationsLike:
    """The protocol of albumentations' transforms."""

    def __init__(self) -> None:
        self.draw: Any = None
        self.set_random_seed(int.from_bytes(random.randbytes(4), "little"))

    def set_random_seed(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.draw = lambda: float(rng.random())

    def __call__(self) -> float:
        return self.draw()


def _closure() -> Callable[[], float]:
    rng = random.Random()
    return lambda: rng.random()


class Draws(Dataset[Any]):
    def __init__(self, draw: Callable[[], Any]):
        self.draw = draw

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> tuple[int, float]:
        return index, float(self.draw())


def _torch_generator() -> Callable[[], float]:
    generator = torch.Generator()
    generator.seed()
    return lambda: float(torch.rand((), generator=generator))


SOURCES: dict[str, Callable[[], Callable[[], Any]]] = {
    "torch": lambda: lambda: torch.rand(()),
    "numpy": lambda: lambda: np.random.rand(),
    "numpy normal": lambda: lambda: np.random.randn(),
    "random": lambda: random.random,
    "numpy Generator": lambda: np.random.default_rng().random,
    "numpy Generator of MT19937": lambda: np.random.Generator(np.random.MT19937()).random,
    "numpy RandomState": lambda: np.random.RandomState().uniform,
    "torch.Generator": _torch_generator,
    "random.Random in a closure": _closure,
    "MONAI": MonaiLike,
    "albumentations": AlbumentationsLike,
}


def read(draws: Any, workers: int = 0, batch: int = 4, epochs: int = 2, seed: int = 7) -> Any:
    """For each epoch: sample → what it drew."""
    loader = DataLoader(draws, batch_size=batch, num_workers=workers)
    feed = make_feed(loader, seed, "train")
    found = []
    for epoch in range(epochs):
        batches = [batch for batch, _ in feed.epoch(epoch, 0, 0)]
        ids, xs = (torch.cat(parts).tolist() for parts in zip(*batches, strict=True))
        found.append(dict(zip(ids, xs, strict=True)))
    feed.close()
    return found


# pains/trainer.md row 18
@pytest.mark.parametrize("name", SOURCES)
def test_draws_differ_between_samples_and_epochs_and_repeat(name: str) -> None:
    first, second = read(Draws(SOURCES[name]()))
    assert len({*first.values(), *second.values()}) == 2 * SIZE
    assert [first, second] == read(Draws(SOURCES[name]()))
    assert [first, second] != read(Draws(SOURCES[name]()), seed=8)


# pains/trainer.md row 18
@pytest.mark.parametrize("name", SOURCES)
def test_draws_do_not_depend_on_the_batch_size(name: str) -> None:
    assert read(Draws(SOURCES[name]()), batch=5) == read(Draws(SOURCES[name]()), batch=1)


# pains/trainer.md row 18: all sources at once, each with its own place in a tuple
@pytest.mark.parametrize("workers", [1, 3])
def test_draws_do_not_depend_on_the_number_of_workers(workers: int) -> None:
    class All(Draws):
        def __init__(self) -> None:
            self.sources = [make() for make in SOURCES.values()]

        def __getitem__(self, index: int) -> tuple[int, float]:
            return index, sum(10.0**-n * float(draw()) for n, draw in enumerate(self.sources))

    assert read(All(), workers) == read(All(), 0)


# pains/trainer.md row 18: Subset has a `__getitems__` that only hands on
def test_draws_of_a_subset_do_not_depend_on_the_batch_size() -> None:
    def subset() -> Any:
        return Subset(Draws(SOURCES["torch"]()), range(2, 11))

    assert read(subset(), batch=4) == read(subset(), batch=3)


def test_a_data_set_that_reads_batches_repeats_per_batch_and_says_so(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Batches(Draws):
        def __getitems__(self, indices: list[int]) -> Any:
            return [self[index] for index in indices]

    assert read(Batches(random.random)) == read(Batches(random.random))
    assert len(set(read(Batches(random.random))[0].values())) == SIZE
    assert "reads whole batches" in capfd.readouterr().err


# pains/trainer.md row 18: which generators are drawn from shows only when a sample does
@pytest.mark.parametrize("draw", [random.random, np.random.rand, np.random.randn])
@pytest.mark.parametrize("batch", [1, 4, 12])
def test_a_sample_that_draws_late_is_seeded_as_any(draw: Any, batch: int) -> None:
    class Late(Draws):
        def __getitem__(self, index: int) -> tuple[int, float]:
            return index, float(torch.rand(())) + (float(self.draw()) if index in (6, 9) else 0.0)

    class Always(Draws):
        def __getitem__(self, index: int) -> tuple[int, float]:
            chosen, drawn = float(torch.rand(())), float(self.draw())
            return index, chosen + (drawn if index in (6, 9) else 0.0)

    assert read(Late(draw), batch=batch) == read(Always(draw), batch=3)


class ReadsBatches(Draws):
    """Draws each sample of a batch from the seed that it is given."""

    given: list[int]

    def read_batch(self, indices: list[int], seeds: list[int]) -> Any:
        self.given = seeds
        return [(i, random.Random(seed).random()) for i, seed in zip(indices, seeds, strict=True)]


# pains/trainer.md row 18
@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_set_that_takes_seeds_repeats_per_sample(
    workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    data = ReadsBatches(random.random)
    first, second = read(data, workers, batch=5)
    assert [first, second] == read(data, 0, batch=3)
    assert len({*first.values(), *second.values()}) == 2 * SIZE
    assert all(0 <= seed < 2**63 for seed in data.given)
    assert "reads whole batches" not in capfd.readouterr().err


def test_the_seeds_of_a_batch_are_those_that_seed_each_sample() -> None:
    class PerSample(Draws):
        def __getitem__(self, index: int) -> tuple[int, float]:
            return index, random.random()

    assert read(PerSample(int)) == read(ReadsBatches(int))


# pains/trainer.md row 18
def test_without_workers_the_training_process_draws_as_if_nothing_was_loaded() -> None:
    class Greedy(Draws):
        def __getitem__(self, index: int) -> tuple[int, float]:
            return index, float(torch.rand(())) + float(np.random.randn()) + random.random()

    def draws(loading: bool) -> Any:
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        batches = make_feed(DataLoader(Greedy(int), 4), 3, "train").epoch(0, 0, 0)
        found = []
        for _ in range(3):
            # One number of a normal pair: numpy keeps the other for the next call.
            found.append((float(torch.rand(())), float(np.random.randn()), random.random()))
            if loading:
                next(batches)
        return found

    assert draws(loading=True) == draws(loading=False)
    before = torch.get_rng_state(), np.random.get_state(legacy=False), random.getstate()
    list(make_feed(DataLoader(Greedy(int), 4), 3, "train").epoch(0, 0, 0))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state(legacy=False)) == repr(before[1])
    assert random.getstate() == before[2]


def test_data_sets_of_tensors_are_read_without_touching_a_generator() -> None:
    x = torch.arange(10.0)
    before = torch.get_rng_state()
    feed = make_feed(DataLoader(TensorDataset(x), 4, shuffle=True), 3, "train")
    read = torch.cat([batch[0] for batch, _ in feed.epoch(0, 0, 0)])
    assert sorted(read.tolist()) == x.tolist()
    assert torch.equal(torch.get_rng_state(), before)


# pains/trainer.md row 18
@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_exchanged_between_epochs_is_seeded_as_well(workers: int) -> None:
    def run() -> list[float]:
        draws = Draws(np.random.default_rng().random)
        feed = make_feed(DataLoader(draws, 4, num_workers=workers), 7, "train")
        list(feed.epoch(0, 0, 0))
        draws.draw = MonaiLike()
        found = [float(x) for (_, xs), _ in feed.epoch(1, 0, 0) for x in xs]
        feed.close()
        return found

    assert run() == run()


def test_isolation_keeps_its_own_stream_and_the_callers() -> None:
    isolation = Isolation()
    isolation.seed(5)
    inside = []
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    expected = torch.rand(2).tolist(), np.random.rand(2).tolist(), [random.random() for _ in "ab"]
    torch.manual_seed(0), np.random.seed(0), random.seed(0)
    outside: Any = ([], [], [])
    for _ in range(2):
        with isolation:
            inside.append((float(torch.rand(())), np.random.rand(), random.random()))
        outside[0].append(float(torch.rand(())))
        outside[1].append(np.random.rand())
        outside[2].append(random.random())
    assert outside == expected
    again = Isolation()
    again.seed(5)
    with again:
        assert [(float(torch.rand(())), np.random.rand(), random.random()) for _ in "ab"] == inside


def test_isolation_goes_on_from_its_state() -> None:
    def draw(isolation: Isolation) -> Any:
        with isolation:
            return float(torch.rand(())), np.random.rand(), random.random()

    one, other = Isolation(), Isolation()
    one.seed(5)
    draw(one)
    other.state = one.state
    assert draw(one) == draw(other)


def test_generators_of_an_object_are_put_back() -> None:
    class Holder:
        def __init__(self) -> None:
            self.parts = [np.random.default_rng(), {"a": torch.Generator()}, random.Random()]
            self.state = np.random.RandomState()

        def draw(self) -> Any:
            numbers, named, python = self.parts
            tensor: Tensor = torch.rand((), generator=named["a"])
            return numbers.random(), float(tensor), python.random(), self.state.randn()

    one, other = Holder(), Holder()
    one.draw()
    set_private_states(other, private_states(one))
    assert [one.draw(), one.draw()] == [other.draw(), other.draw()]


def test_seeds_of_neighbouring_purposes_are_apart() -> None:
    seeds = {derive(s, n, e) for s in range(9) for n in ("train", "val/0") for e in range(9)}
    assert len(seeds) == 9 * 2 * 9
    bits = [bin(derive(1, "train", e) ^ derive(1, "train", e + 1)).count("1") for e in range(500)]
    # 64 independent bits differ in 32 of them; the mean of 500 has a standard error of 0.18.
    assert abs(float(np.mean(bits)) - 32) < 1


def test_a_drawn_seed_is_said_with_what_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("renshu.seeds._seed", None)
    before = torch.get_rng_state(), random.getstate()
    seed = run_seed(None)
    assert f"seed: {seed} (drawn; Trainer(seed={seed}) repeats" in capfd.readouterr().err
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    monkeypatch.setattr("renshu.seeds._seed", 7)
    assert (run_seed(None), run_seed(0)) == (7, 0)
    assert not capfd.readouterr().err


def test_shuffling_by_a_given_generator_is_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("renshu.messages._said", set())
    make_feed(DataLoader(Draws(int), 4, shuffle=True), 1, "train")
    assert not capfd.readouterr().err
    for _ in range(2):
        generator = torch.Generator().manual_seed(9)
        feed = make_feed(DataLoader(Draws(int), 4, shuffle=True, generator=generator), 1, "train")
    order = [i for (ids, _), _ in feed.epoch(0, 0, 0) for i in ids.tolist()]
    other = make_feed(DataLoader(Draws(int), 4, shuffle=True), 9, "train")
    assert order == [i for (ids, _), _ in other.epoch(0, 0, 0) for i in ids.tolist()]
    assert capfd.readouterr().err.count("seed of the sampler's generator") == 1
