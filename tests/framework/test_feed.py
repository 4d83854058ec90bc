"""Workers live as long as the fit; what is skipped is not read; the user's loader is respected."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from killing import Net, Noisy, Validated, fit, in_child, killed_and_resumed, lines, note
from renshu.feed import make_feed
from renshu.order import Share


class Starts:
    """A worker_init_fn that notes each start of a worker."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, worker: int) -> None:
        note(self.path, worker)


# pains/trainer.md row 11
def test_workers_start_once_a_fit_and_loader(run_dir: Path) -> None:
    train, val = run_dir / "train", run_dir / "val"
    in_child(
        lambda: fit(
            lambda: DataLoader(Noisy(), 8, num_workers=2, worker_init_fn=Starts(train)),
            Validated,
            lambda: DataLoader(Noisy(8), 4, num_workers=1, worker_init_fn=Starts(val)),
            max_epochs=3,
            val_check_interval=1,
        )
    )
    assert sorted(lines(train)) == ["0", "1"]
    assert lines(val) == ["0"]


# pains/trainer.md row 11
def test_workers_have_ended_when_the_fit_returns() -> None:
    def run() -> list[int]:
        import multiprocessing

        fit(lambda: DataLoader(Noisy(), 8, num_workers=2), max_epochs=1)
        return [child.pid for child in multiprocessing.active_children()]

    assert in_child(run) == []


# pains/trainer.md row 14
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_reads_no_sample_that_was_consumed(workers: int, run_dir: Path) -> None:
    reads = run_dir / "reads"

    def loader() -> Any:
        return DataLoader(Noisy(40, reads), 4, shuffle=True, num_workers=workers)

    seen = run_dir / "seen"
    killed_and_resumed(14, 0, loader=loader, module=lambda: Net(seen), max_epochs=2)
    read, trained = lines(reads), lines(seen)
    # Of the 80 samples of two epochs each was trained on once; what the killed process had
    # prefetched (2 workers x 2 batches at most) is read by both.
    assert len(trained) == 20
    assert 80 <= len(read) <= 80 + workers * 2 * 4


# pains/trainer.md row 14
@pytest.mark.parametrize("sampler", [None, range(99_999, -1, -1)])
def test_coming_back_late_in_a_large_epoch_reads_one_batch(sampler: Any) -> None:
    class Large(Noisy):
        reads_so_far = 0

        def __getitem__(self, index: int) -> Any:
            self.reads_so_far += 1
            return index

    data = Large(100_000)
    order = {"shuffle": True} if sampler is None else {"sampler": sampler}
    feed = make_feed(DataLoader(data, 10, **order), 1, "train")
    next(feed.epoch(0, 99_900, 9_990))
    assert data.reads_so_far == 10


class Graded(Noisy):
    """Its samples are the grade that someone sets between epochs."""

    def __init__(self) -> None:
        super().__init__(8)
        self.grade = 0

    def __getitem__(self, index: int) -> Any:
        return self.grade


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, range(8))])
def test_workers_start_anew_when_the_data_set_was_changed(
    wrap: Any, run_dir: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("renshu.messages._said", set())
    data, starts = Graded(), run_dir / "starts"
    loader = DataLoader(wrap(data), 4, num_workers=1, worker_init_fn=Starts(starts))
    feed = make_feed(loader, 1, "train")
    seen = []
    for epoch in range(6):
        if epoch in (2, 4):
            data.grade = epoch
        seen.append({int(x) for batch, _ in feed.epoch(epoch, 0, 0) for x in batch})
    feed.close()
    assert seen == [{0}, {0}, {2}, {2}, {4}, {4}]
    assert len(lines(starts)) == 3
    assert capfd.readouterr().err.count("its workers start again") == 1


def test_workers_leave_ctrl_c_to_the_training_process(run_dir: Path) -> None:
    class Handler(Noisy):
        def __getitem__(self, index: int) -> Any:
            return int(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)

    feed = make_feed(DataLoader(Handler(4), 4, num_workers=1), 1, "train")
    assert [batch.tolist() for batch, _ in feed.epoch(0, 0, 0)] == [[1, 1, 1, 1]]
    feed.close()


def test_an_error_in_a_worker_names_its_cause() -> None:
    class Broken(Noisy):
        def __getitem__(self, index: int) -> Any:
            if index == 5:
                raise ValueError("sample 5 is broken")
            return super().__getitem__(index)

    feed = make_feed(DataLoader(Broken(8), 4, num_workers=1), 1, "train")
    with pytest.raises(ValueError, match="sample 5 is broken"):
        list(feed.epoch(0, 0, 0))
    feed.close()


def _pairs(feed: Any, epoch: int = 0, samples: int = 0, batches: int = 0) -> Iterator[Any]:
    for batch, count in feed.epoch(epoch, samples, batches):
        yield batch[0].tolist(), count, feed.last


@pytest.mark.parametrize("limit", [None, 2, 3, 9])
def test_the_last_batch_is_known_and_a_limit_cuts(limit: int | None) -> None:
    x = torch.arange(10)
    loaders: list[Any] = [
        DataLoader(TensorDataset(x), 4),
        DataLoader(TensorDataset(x), 4, collate_fn=torch.utils.data.default_collate),
        DataLoader(TensorDataset(x), 4, sampler=range(10)),
        DataLoader(TensorDataset(x), 4, num_workers=1),
        DataLoader(Subset(TensorDataset(x), range(10)), 4),
    ]
    expected = [([0, 1, 2, 3], 4, False), ([4, 5, 6, 7], 4, False), ([8, 9], 2, True)][:limit]
    expected[-1] = (*expected[-1][:2], True)
    for loader in loaders:
        feed = make_feed(loader, 1, "train", limit=limit)
        assert list(_pairs(feed)) == expected
        assert list(_pairs(feed, 1)) == expected
        assert list(_pairs(feed, 2, 4, 1)) == expected[1:]
        feed.close()


def test_the_same_order_for_any_number_of_processes() -> None:
    data = TensorDataset(torch.arange(24))
    whole = [batch for batch, _, _ in _pairs(make_feed(DataLoader(data, 8, shuffle=True), 1, "t"))]
    for world in (2, 4):
        feeds = [
            make_feed(DataLoader(data, 8 // world, shuffle=True), 1, "t", share=Share(rank, world))
            for rank in range(world)
        ]
        parts = [[batch for batch, _, _ in _pairs(feed)] for feed in feeds]
        for step, batch in enumerate(whole):
            assert sorted(x for part in parts for x in part[step]) == sorted(batch)
