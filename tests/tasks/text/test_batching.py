"""Batches of like length: how much they pad, how random they are, how they resume."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from killing import Noisy, in_child, killed_and_resumed, same
from killing import fit as fit_small
from renshu.errors import CheckpointError, ConfigError
from renshu.feed import make_feed
from renshu.order import Share
from renshu_tasks.text.batching import (
    LengthBatches,
    length_drift,
    padding_ratio,
    repeated_neighbours,
)


def tweets(size: int, seed: int = 0) -> Tensor:
    """Lengths as those of the embedded texts: a log-normal body around 33 tokens. int64 [size]"""
    drawn = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return (32 * torch.exp(0.4 * drawn)).long().clamp(3, 265)


def epoch(batches: LengthBatches, number: int) -> list[list[int]]:
    batches.set_epoch(number)
    return list(batches)


@pytest.mark.parametrize("limits", [{"batch_size": 7}, {"max_tokens": 900}])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_comes_once_an_epoch(limits: dict[str, int], shuffle: bool) -> None:
    batches = LengthBatches(tweets(1000), **limits, shuffle=shuffle, seed=1)
    for number in range(3):
        found = epoch(batches, number)
        assert sorted(row for batch in found for row in batch) == list(range(1000))
        assert len(found) == len(batches)


# pains/text_serving.md row 24
@pytest.mark.parametrize("seed", range(5))
def test_a_budget_of_tokens_is_never_exceeded_and_is_used(seed: int) -> None:
    lengths = tweets(2000, seed)
    batches = LengthBatches(lengths, max_tokens=800, seed=seed)
    for number in range(3):
        padded = [len(batch) * int(lengths[batch].max()) for batch in epoch(batches, number)]
        assert max(padded) <= 800
        assert sum(padded) / len(padded) > 0.88 * 800


def test_both_limits_hold_together() -> None:
    lengths = tweets(2000)
    found = list(LengthBatches(lengths, 16, 800, seed=0))
    assert max(map(len, found)) == 16
    assert max(len(batch) * int(lengths[batch].max()) for batch in found) <= 800


# pains/text_serving.md row 30: random order pads by 1.47 here
def test_padding_is_within_a_twentieth() -> None:
    lengths = tweets(8192)
    rows = torch.randperm(8192).tolist()
    in_random_order = [rows[start : start + 32] for start in range(0, 8192, 32)]
    assert padding_ratio(lengths, in_random_order) > 1.4
    assert padding_ratio(lengths, list(LengthBatches(lengths, 32, seed=0))) < 1.05
    assert padding_ratio(lengths, list(LengthBatches(lengths, 32, shuffle=False))) < 1.02


def test_padding_counts_what_a_batch_is_padded_to() -> None:
    assert padding_ratio([1, 3, 2, 2], [[0, 1], [2, 3]]) == (2 * 3 + 2 * 2) / 8


# pains/text_serving.md row 31: against what the Trainer of transformers does
def test_order_is_as_random_as_mega_batches_and_has_no_saw_tooth() -> None:
    trainer = pytest.importorskip("transformers.trainer_pt_utils")
    lengths = tweets(20000)

    def grouped(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        rows = trainer.get_length_grouped_indices(lengths.tolist(), 32, generator=generator)
        return [rows[start : start + 32] for start in range(0, len(rows), 32)]

    batches = LengthBatches(lengths, 32, seed=0)
    ours, theirs = (epoch(batches, 0), epoch(batches, 1)), (grouped(0), grouped(1))
    assert padding_ratio(lengths, ours[0]) < padding_ratio(lengths, theirs[0])
    assert repeated_neighbours(*ours) < 1.05 * repeated_neighbours(*theirs)
    assert abs(length_drift(lengths, ours[0])) < 0.1 < 0.6 < length_drift(lengths, theirs[0])


def test_repeated_neighbours_of_known_orders() -> None:
    rows = list(range(3200))
    fixed = [rows[start : start + 32] for start in range(0, 3200, 32)]
    # The same batches again: every pair repeats, where 31 of 3199 would.
    assert repeated_neighbours(fixed, fixed) == pytest.approx(3199 / 31)
    mixed = torch.randperm(3200, generator=torch.Generator().manual_seed(0)).tolist()
    random = [mixed[start : start + 32] for start in range(0, 3200, 32)]
    assert repeated_neighbours(fixed, random) == pytest.approx(1, abs=0.06)


def test_drift_of_known_orders() -> None:
    lengths = torch.arange(1, 101)
    assert length_drift(lengths, [[row] for row in range(100)]) == pytest.approx(1)
    zigzag = [[row] for pair in zip(range(50), range(99, 49, -1), strict=True) for row in pair]
    assert length_drift(lengths, zigzag) < -0.5


def test_a_sample_may_stand_at_any_place_of_an_epoch() -> None:
    lengths, places = tweets(640), []
    batches = LengthBatches(lengths, 16, seed=3)
    for number in range(400):
        found = epoch(batches, number)
        places.append(next(place for place, batch in enumerate(found) if 7 in batch))
    counts = np.bincount(places, minlength=len(batches))
    # Chi-squared with 39 degrees of freedom: 72 is exceeded once in a thousand times.
    assert ((counts - 10) ** 2 / 10).sum() < 72


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, again = (LengthBatches(tweets(300), 8, seed=4) for _ in range(2))
    torch.manual_seed(0)
    one = epoch(first, 2)
    torch.manual_seed(1)
    assert epoch(again, 2) == one
    assert epoch(again, 3) != one
    assert epoch(LengthBatches(tweets(300), 8, seed=5), 2) != one


def test_without_a_seed_the_order_follows_torchs_generator() -> None:
    batches = LengthBatches(tweets(300), 8)
    torch.manual_seed(0)
    first, second = list(batches), list(batches)
    torch.manual_seed(0)
    assert list(batches) == first != second


def test_evaluation_begins_with_the_longest() -> None:
    lengths = tweets(300)
    found = list(LengthBatches(lengths, 8, shuffle=False))
    longest = [int(lengths[batch].max()) for batch in found]
    assert longest == sorted(longest, reverse=True)
    assert found == list(LengthBatches(lengths, 8, shuffle=False))


def test_a_sample_beyond_the_budget_is_refused_with_its_row() -> None:
    with pytest.raises(ConfigError, match="sample of 50 tokens does not fit") as caught:
        LengthBatches([3, 50, 4], max_tokens=49)
    assert caught.value.where == "row 1"
    assert len(LengthBatches([3, 50, 4], max_tokens=50)) == 2


def test_without_any_limit_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="how large a batch is"):
        LengthBatches([3, 4])


def test_no_sample_gives_no_batch() -> None:
    batches = LengthBatches([], 8)
    assert (len(batches), list(batches)) == (0, [])


SIZE = 61


def loader(workers: int = 0, **options: Any) -> DataLoader[Any]:
    batches = LengthBatches(tweets(SIZE), **{"max_tokens": 200} | options)
    return DataLoader(Noisy(SIZE), batch_sampler=batches, num_workers=workers)


def read(feed: Any, place: tuple[int, int, int, Any] = (0, 0, 0, None)) -> list[Any]:
    """The ids of every batch from a place on, each with the place after it."""
    start, samples, batches, state = place
    if state:
        feed.load_state_dict(copy.deepcopy(state))
    found = []
    for number in range(start, 3):
        for (ids, _), _ in feed.epoch(number, samples, batches):
            samples, batches = samples + feed.total, batches + 1
            here = (number + 1, 0, 0) if feed.last else (number, samples, batches)
            found.append((ids.tolist(), (*here, feed.state_dict())))
        samples = batches = 0
    return found


# pains/text_serving.md row 17
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("seed", [None, 7])
def test_goes_on_from_every_place_in_every_process(rank: int, seed: int | None) -> None:
    def feed() -> Any:
        return make_feed(loader(seed=seed), 5, "train", share=Share(rank, 2))

    whole = read(feed())
    assert len(whole) == 3 * -(-len(LengthBatches(tweets(SIZE), max_tokens=200)) // 2)
    for number, (_, place) in enumerate(whole):
        rest = [ids for ids, _ in whole[number + 1 :]]
        assert [ids for ids, _ in read(feed(), place)] == rest


def test_processes_share_out_an_epoch() -> None:
    alone = make_feed(loader(), 5, "train")
    feeds = [make_feed(loader(), 5, "train", share=Share(rank, 2)) for rank in (0, 1)]
    everything = [ids.tolist() for (ids, _), _ in alone.epoch(0, 0, 0)]
    taken = zip(*(feed.epoch(0, 0, 0) for feed in feeds), strict=True)
    # A process without a batch of its own gets one that counts as no sample.
    dealt = [ids.tolist() for step in taken for (ids, _), count in step if count]
    assert dealt == everything


# pains/text_serving.md row 17: killed with workers that were batches ahead
@pytest.mark.parametrize("save", [5, 8])
def test_a_killed_run_ends_bit_equal(
    save: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = in_child(lambda: fit_small(loader, run="whole", max_epochs=2))
    parts = killed_and_resumed(save, loader=lambda: loader(workers=2), max_epochs=2)
    assert same(whole, parts)


def test_other_lengths_are_refused_on_resume() -> None:
    state = LengthBatches(tweets(SIZE), 8).state_dict()
    with pytest.raises(CheckpointError, match="an epoch has 16 batches, and had 8 before"):
        LengthBatches(tweets(SIZE), 4).load_state_dict(state)
