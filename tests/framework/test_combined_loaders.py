"""Several loaders at once: the same batches as Lightning's, and an exact resume."""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import renshu
from killing import Noisy, check_exact, fit, note
from renshu.combined import MODES, CombinedFeed
from renshu.errors import CheckpointError, ConfigError, DataError
from renshu.order import Share
from renshu.utilities import CombinedLoader
from small_models import Classifier, digits, trainer

# Two workers a loader on a machine with two cores.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Pair(NamedTuple):
    first: Any
    second: Any


def numbers(count: int, size: int, start: int = 0, **options: Any) -> DataLoader[Any]:
    data: Any = range(start, start + count)
    return DataLoader(data, batch_size=size, **options)


class Stream(IterableDataset[int]):
    """An iterable data set that does not say how long it is."""

    def __init__(self, count: int):
        self.count = count

    def __iter__(self) -> Any:
        return iter(range(self.count))


COLLECTIONS = {
    "dict": lambda: {"a": numbers(6, 4), "b": numbers(15, 5, 100)},
    "list": lambda: [numbers(7, 2), numbers(3, 2, 100), numbers(9, 4, 200)],
    "nested": lambda: {"a": [numbers(4, 2), numbers(8, 1, 50)], "b": (numbers(3, 3),)},
    "named": lambda: OrderedDict(x=Pair(numbers(4, 2), numbers(10, 2, 50))),
    "equal": lambda: [numbers(6, 2), numbers(6, 2, 50)],
    "ranges": lambda: {"a": range(3), "b": range(5, 12)},
    "single": lambda: numbers(5, 2),
}


def plain(value: Any) -> Any:
    """Tensors as lists, so that nested batches can be compared."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return type(value)((key, plain(item)) for key, item in value.items())
    if isinstance(value, Pair):
        return Pair(*map(plain, value))
    return type(value)(map(plain, value)) if isinstance(value, (list, tuple)) else value


# capabilities D2
@pytest.mark.filterwarnings("ignore:.isinstance.treespec")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_the_loader_gives_what_lightnings_gives(collection: str, mode: Any) -> None:
    lightning = pytest.importorskip("pytorch_lightning.utilities.combined_loader")
    theirs = lightning.CombinedLoader(COLLECTIONS[collection](), mode)
    ours = CombinedLoader(COLLECTIONS[collection](), mode)
    expected = [plain(found) for found in theirs]
    assert [plain(found) for found in ours] == expected
    assert len(ours) == len(expected) == len(theirs)


def seen_by(feed: CombinedFeed, epoch: int = 0) -> list[Any]:
    return [plain(batch) for batch, _ in feed.epoch(epoch, 0, 0)]


# capabilities D2
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("collection", COLLECTIONS)
def test_training_sees_the_batches_of_the_loader(collection: str, mode: Any) -> None:
    loader = CombinedLoader(COLLECTIONS[collection](), mode)
    expected = [plain(batch) for batch, _, _ in loader]
    feed = CombinedFeed(loader, 1, "train")
    assert feed.length == len(expected)
    last = []
    for epoch in range(2):
        found = []
        for batch, _ in feed.epoch(epoch, 0, 0):
            found.append(plain(batch))
            last.append(feed.last)
        assert found == expected
    assert last == ([False] * (len(expected) - 1) + [True]) * 2


# capabilities D2; the warnings are those of Lightning
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("limit", [2, 0.5, 1.0, 3])
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "sequential"])
def test_limits_cut_as_lightnings_do(mode: Any, limit: int | float) -> None:
    pytorch_lightning = pytest.importorskip("pytorch_lightning")
    utilities = pytest.importorskip("pytorch_lightning.utilities.combined_loader")

    def run(library: Any, loader: Any, maker: Any) -> list[Any]:
        seen = list[Any]()

        class Recorder(library):
            def __init__(self) -> None:
                super().__init__()
                self.weight = nn.Parameter(torch.ones(()))

            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                seen.append((batch_idx, plain(batch)))
                return self.weight * 1.0

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.1)

        maker(limit_train_batches=limit, max_epochs=2).fit(Recorder(), loader)
        return seen

    quiet = partial(
        pytorch_lightning.Trainer, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    collection = COLLECTIONS["list"]
    theirs = run(
        pytorch_lightning.LightningModule, utilities.CombinedLoader(collection(), mode), quiet
    )
    assert run(renshu.Module, CombinedLoader(collection(), mode), trainer) == theirs


# capabilities D2
def test_sequential_training_limits_each_loader() -> None:
    loader = CombinedLoader(COLLECTIONS["list"](), "sequential")
    feed = CombinedFeed(loader, 1, "train")
    feed.cut([1, 0, 2])
    assert feed.length == 3
    assert seen_by(feed) == [[0, 1], [200, 201, 202, 203], [204, 205, 206, 207]]


@pytest.mark.parametrize("mode", MODES)
def test_loaders_that_do_not_say_their_length(mode: Any) -> None:
    loader = CombinedLoader([DataLoader(Stream(5), 2), numbers(3, 2)], mode)
    feed = CombinedFeed(loader, 1, "train")
    assert feed.length == (2 if mode == "min_size" else None)
    expected = [plain(batch) for batch, _, _ in loader]
    assert seen_by(feed) == seen_by(feed, 1) == expected
    assert feed.last


# capabilities D2
def test_a_collection_of_train_loaders_cycles_through_the_shorter() -> None:
    seen = list[Any]()

    class Two(Classifier):
        def train_dataloader(self) -> Any:
            return {"a": numbers(4, 2), "b": numbers(6, 2, 100)}

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            seen.append(plain(batch))
            self.log("size", 1.0, on_epoch=True)
            return self(torch.ones(1, 64)).sum()

    run = trainer()
    run.fit(Two())
    assert seen == [
        {"a": [0, 1], "b": [100, 101]}, {"a": [2, 3], "b": [102, 103]},
        {"a": [0, 1], "b": [104, 105]},
    ]  # fmt: skip
    assert (run.num_training_batches, run.progress.samples) == (3, 12)


# capabilities D2
def test_evaluation_reads_a_dict_of_loaders_one_after_the_other() -> None:
    x, y = digits(12)
    loaders = {n: DataLoader(TensorDataset(x[s], y[s]), 4) for n, s in
               (("a", slice(0, 8)), ("b", slice(8, 12)))}  # fmt: skip

    class Numbered(Classifier):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("size", float(len(batch[0])), reduce_fx="sum")
            self.log("number", float(dataloader_idx))

    together = trainer().validate(Numbered(), loaders, verbose=False)
    assert together == trainer().validate(
        Numbered(), CombinedLoader(loaders, "sequential"), verbose=False
    )
    assert together == [
        {"size/dataloader_idx_0": 8, "number/dataloader_idx_0": 0},
        {"size/dataloader_idx_1": 4, "number/dataloader_idx_1": 1},
    ]


# capabilities D2
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_may_combine_as_well(stage: str) -> None:
    seen = list[Any]()

    class Both(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append((plain(batch), batch_idx))

        test_step = validation_step

    loader = CombinedLoader({"a": numbers(4, 2), "b": numbers(6, 2, 100)}, "max_size")
    getattr(trainer(), stage)(Both(), loader)
    assert seen == [
        ({"a": [0, 1], "b": [100, 101]}, 0),
        ({"a": [2, 3], "b": [102, 103]}, 1),
        ({"a": None, "b": [104, 105]}, 2),
    ]


def test_a_shorter_loader_is_shuffled_anew_each_time_it_begins() -> None:
    loader = CombinedLoader([numbers(8, 8, shuffle=True), numbers(40, 8)], "max_size_cycle")
    feed = CombinedFeed(loader, 1, "train")
    orders = [
        tuple(batch[0].tolist()) for epoch in range(3) for batch, _ in feed.epoch(epoch, 0, 0)
    ]
    assert len(set(orders)) == 15
    assert all(sorted(order) == list(range(8)) for order in orders)


class Several(renshu.Module):
    """A loss over the parts of a batch of whatever nesting; notes the sample ids."""

    def __init__(self, seen: Path | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 1))
        self.seen = seen

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        parts = list(batch.values()) if isinstance(batch, dict) else [batch]
        parts = [part for part in parts if part is not None]
        if self.seen is not None:
            note(self.seen, [part[0].tolist() for part in parts])
        loss = sum(((self.net(x) - x.sum(1, keepdim=True)) ** 2).mean() for _, x in parts)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss  # type: ignore[return-value]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.002, momentum=0.9)


class Stateful(torch.utils.data.Sampler[int]):
    """Goes on where it is; its order depends on how often it began."""

    def __init__(self, size: int):
        self.size, self.rounds, self.at = size, 0, 0

    def __iter__(self) -> Any:
        order = np.random.RandomState(self.rounds).permutation(self.size)
        while self.at < self.size:
            self.at += 1
            yield int(order[self.at - 1])
        self.rounds, self.at = self.rounds + 1, 0

    def __len__(self) -> int:
        return self.size

    def state_dict(self) -> dict[str, int]:
        return {"rounds": self.rounds, "at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.rounds, self.at = state["rounds"], state["at"]


def unequal(mode: str, workers: int = 0, sampler: bool = False) -> CombinedLoader:
    """5 batches, the last of 3; 2 batches, the last of 1; 3 batches."""
    own: dict[str, Any] = {"sampler": Stateful(7)} if sampler else {"shuffle": True}
    return CombinedLoader(
        {
            "long": DataLoader(Noisy(19), 4, shuffle=True, num_workers=workers),
            "short": DataLoader(Noisy(5), 4, shuffle=True, num_workers=workers),
            "other": DataLoader(Noisy(7), 3, num_workers=workers, **own),
        },
        mode,
    )


# capabilities D2
@pytest.mark.parametrize(
    ("mode", "save", "workers", "sampler"),
    [
        ("max_size_cycle", 2, 0, False),
        ("max_size_cycle", 3, 0, True),
        ("max_size_cycle", 5, 2, False),
        ("max_size_cycle", 8, 2, True),
        ("max_size", 4, 0, True),
        ("max_size", 7, 2, False),
        ("min_size", 1, 0, True),
        ("min_size", 4, 2, False),
        ("sequential", 6, 0, True),
        ("sequential", 10, 0, False),
        ("sequential", 13, 2, True),
    ],
)
def test_killed_at_any_batch_it_goes_on_as_if_never_stopped(
    mode: str, save: int, workers: int, sampler: bool, run_dir: Path
) -> None:
    check_exact(
        save,
        loader=lambda: unequal(mode, workers, sampler),
        module=Several,
        accumulate_grad_batches=2,
        max_epochs=3,
    )


Place = tuple[int, int, dict[str, Any]]


def read(feed: CombinedFeed, place: Place = (0, 0, {})) -> list[tuple[Any, Place]]:
    """The batches of three epochs from a place on, each with the place after it."""
    epoch, batches, state = place
    if state:
        feed.load_state_dict(copy.deepcopy(state))
    found = list[tuple[Any, Place]]()
    for number in range(epoch, 3):
        for batch, _ in feed.epoch(number, 0, batches):
            batches += 1
            after = (number + 1, 0) if feed.last else (number, batches)
            found.append((plain(batch), (*after, copy.deepcopy(feed.state_dict()))))
            if feed.last:
                break
        batches = 0
    feed.close()
    return found


# capabilities D2
@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("mode", MODES)
def test_from_every_batch_the_same_batches_follow(mode: str, limit: int | None) -> None:
    def feed() -> CombinedFeed:
        made = CombinedFeed(unequal(mode, sampler=True), 1, "train")
        made.cut([limit] * 3)
        return made

    whole = read(feed())
    # The sampler of the third loader goes on in the middle of its 7 samples after min_size's end.
    assert len(whole) == (5 if mode == "min_size" else 3 * (feed().length or 0))
    for number, (_, place) in enumerate(whole):
        assert [b for b, _ in read(feed(), place)] == [b for b, _ in whole[number + 1 :]]


# capabilities D2
def test_a_loader_left_in_the_middle_goes_on_where_it_was_consumed_not_prefetched() -> None:
    feeds = [CombinedFeed(unequal("max_size_cycle", w, sampler=True), 1, "train") for w in (0, 2)]
    alone, prefetched = map(read, feeds)
    assert [batch for batch, _ in alone] == [batch for batch, _ in prefetched]


# capabilities D2
def test_the_workers_change_nothing(run_dir: Path) -> None:
    found = [
        fit(partial(unequal, "max_size_cycle", workers), Several, run=f"w{workers}", max_epochs=2)
        for workers in (0, 2)
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("mode", MODES)
def test_processes_share_out_the_batches_and_take_as_many_steps(mode: str) -> None:
    def ids(batch: Any) -> list[int]:
        return [i for part in batch.values() if part is not None for i in part.tolist()]

    # Twice the batch size of two processes.
    whole = CombinedFeed(
        CombinedLoader({"a": numbers(12, 4), "b": numbers(6, 4, 50)}, mode), 1, "t"
    )
    halves = [
        CombinedFeed(
            CombinedLoader({"a": numbers(12, 2), "b": numbers(6, 2, 50)}, mode),
            1, "t", share=Share(rank, 2),
        )
        for rank in (0, 1)
    ]  # fmt: skip
    steps = zip(whole.epoch(0, 0, 0), *(half.epoch(0, 0, 0) for half in halves), strict=True)
    for (batch, count), *parts in steps:
        assert count == sum(number or 0 for _, number in parts)
        if mode != "sequential":
            assert sorted(ids(batch)) == sorted(i for part, _ in parts for i in ids(part))
        assert [half.total for half in halves] == [count, count]


def test_a_checkpoint_of_other_loaders_is_refused() -> None:
    feed = CombinedFeed(unequal("min_size"), 1, "train")
    next(feed.epoch(0, 0, 0))
    state = feed.state_dict()
    other = CombinedFeed(CombinedLoader([numbers(4, 2), numbers(6, 2)]), 1, "train")
    other.load_state_dict(state)
    with pytest.raises(CheckpointError, match="3 loaders, not 2"):
        next(other.epoch(0, 11, 1))


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'max_size'"):
        CombinedLoader([numbers(4, 2)], "max-size")
    with pytest.raises(ConfigError, match="no loader"):
        CombinedLoader({})
    empty = CombinedLoader([numbers(4, 2), numbers(0, 2)], "max_size_cycle")
    with pytest.raises(DataError, match="without a batch"):
        list(empty)
    with pytest.raises(DataError, match="without a batch"):
        seen_by(CombinedFeed(empty, 1, "train"))
