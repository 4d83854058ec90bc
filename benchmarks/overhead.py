"""What a trainer adds to a training step, renshu beside Lightning and a hand-written loop.

The model is an MLP 32→64→2 with batches of 8, trained by SGD on one thread, so that the trainer's
own work shows. A run is timed from the start of its first epoch to the end of its last one: making
loaders, epochs' ends and saving inside of them count, the one-off set-up of `fit` does not (it has
its own row). Hand-written loop, renshu and Lightning take turns in one process; a row is the median
over the rounds of the time above the hand-written loop of the same round.

`counts()` needs no clock: Python calls a step, and the frames between `fit` and `training_step`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import _table

STEPS = 3000
EPOCHS = (1, 30)
SETTINGS = ("bare", "with self.log every step", "with self.log and all defaults")
REACH = dict(zip(SETTINGS, ("<= 20", "<= 35", "<= 70"), strict=True))
QUIET: dict[str, Any] = {
    "logger": False,
    "enable_progress_bar": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class Peer:
    """One trainer: where its classes come from and how it is called."""

    package: str
    distribution: str
    module: str

    def classes(self) -> tuple[Any, Any, Any]:
        """(Trainer, Module, Callback) of the trainer."""
        package = importlib.import_module(self.package)
        return package.Trainer, getattr(package, self.module), package.Callback

    def loader(self, data: Any) -> Any:
        """The same batches in the form that the trainer takes."""
        return Ready(data) if self is LIGHTNING and isinstance(data, list) else data


RENSHU = Peer("renshu", "renshu", "Module")
LIGHTNING = Peer("pytorch_lightning", "pytorch-lightning", "LightningModule")


def network() -> nn.Module:
    """The MLP 32→64→2, the same weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))


def batches(kind: str, steps: int) -> Any:
    """`steps` batches of 8: a list of them, or torch's DataLoader that makes them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps * 8, 32, generator=generator)
    y = (x.sum(1) > 0).long()
    if kind == "list":
        return list(zip(x.split(8), y.split(8), strict=True))
    return DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)


class Ready:
    """A list of batches for Lightning, which takes a bare list for a list of loaders."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


def by_hand(data: Any, epochs: int) -> float:
    """Seconds of the loop that anyone would write."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    start = time.perf_counter()
    for _ in range(epochs):
        for x, y in data:
            loss = cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def module_of(base: Any, logs: bool) -> Any:
    """The same model as a module of a trainer; it notes when its first and last epoch were."""

    class Classifier(base):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            return cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

        def on_train_start(self) -> None:
            self.started = time.perf_counter()

        def on_train_end(self) -> None:
            self.ended = time.perf_counter()

    class Logging(Classifier):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            loss = cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

    return Logging() if logs else Classifier()


def by_trainer(peer: Peer, data: Any, epochs: int, setting: str) -> tuple[float, float]:
    """(seconds of the epochs, seconds of all of `fit`) of a trainer."""
    trainer_class, base, _ = peer.classes()
    options = {} if "defaults" in setting else QUIET
    module = module_of(base, logs="log" in setting)
    with tempfile.TemporaryDirectory() as folder, terminal():
        trainer = trainer_class(
            accelerator="cpu", max_epochs=epochs, default_root_dir=folder, **options
        )
        start = time.perf_counter()
        trainer.fit(module, peer.loader(data))
        end = time.perf_counter()
    return module.ended - module.started, end - start


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Give a trainer a real terminal to write to, which nobody sees, so that its bar is drawn."""
    leader, follower = pty.openpty()
    nowhere = subprocess.DEVNULL  # cat ends with a message when the terminal closes
    reader = subprocess.Popen(["cat"], stdin=leader, stdout=nowhere, stderr=nowhere)
    os.close(leader)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in saved:
        os.dup2(follower, number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, old in saved:
            os.dup2(old, number)
            os.close(old)
        os.close(follower)
        reader.wait()


def times(kind: str, epochs: int, setting: str, steps: int, rounds: int) -> Iterable[_table.Row]:
    """The row of one kind of loop and one setting, and the cost of `fit` outside its epochs."""
    data = batches(kind, steps // epochs)
    above: dict[Peer, list[float]] = {RENSHU: [], LIGHTNING: []}
    outside: dict[Peer, list[float]] = {RENSHU: [], LIGHTNING: []}
    hand = []
    for turn in range(rounds + 1):
        base = by_hand(data, epochs)
        measured = {peer: by_trainer(peer, data, epochs, setting) for peer in above}
        if turn == 0:  # warms caches, allocator and imports
            continue
        hand.append(base / steps * 1e6)
        for peer, (inside, total) in measured.items():
            above[peer].append((inside - base) / steps * 1e6)
            outside[peer].append((total - inside) * 1e3)
    where = f"{kind}, {epochs} × {steps // epochs:,} steps"
    ours, theirs = (statistics.median(above[peer]) for peer in (RENSHU, LIGHTNING))
    yield _table.Row(
        f"time a step above the hand-written loop, {setting}: {where}",
        "µs",
        renshu=ours,
        peer=theirs,
        peer_version=_table.named(LIGHTNING.distribution),
        reach=REACH[setting],
        spread=f"{min(above[RENSHU]):.1f} to {max(above[RENSHU]):.1f}; "
        f"loop alone {statistics.median(hand):.0f}",
    )
    if "defaults" in setting and kind == "list" and epochs == 1:
        yield _table.Row(
            "one-off time of fit() outside its epochs, all defaults",
            "ms",
            renshu=statistics.median(outside[RENSHU]),
            peer=statistics.median(outside[LIGHTNING]),
            peer_version=_table.named(LIGHTNING.distribution),
        )


def python_calls(run: Callable[[Any], object], few: int = 100, many: int = 300) -> float:
    """Python functions called a step, from the difference of a short and a longer run."""

    def count(steps: int) -> int:
        total = 0

        def profile(frame: FrameType, event: str, argument: object) -> None:
            nonlocal total
            total += event == "call"

        data = batches("list", steps)
        sys.setprofile(profile)
        try:
            run(data)
        finally:
            sys.setprofile(None)
        return total

    count(few)
    return (count(many) - count(few)) / (many - few)


def calls_above_hand(peer: Peer, setting: str = "bare") -> float:
    """Python calls a step of a trainer, less those of the hand-written loop."""

    def trained(data: Any) -> None:
        by_trainer(peer, data, 1, setting)

    return python_calls(trained) - python_calls(lambda data: by_hand(data, 1))


def trace(peer: Peer, **options: Any) -> list[str]:
    """Files of the frames between `fit` and `training_step`, both and torch's own left out.

    With all defaults, a user's callback, accumulation and bf16-mixed unless `options` say else.
    """
    trainer_class, base, callback = peer.classes()
    longest: list[str] = []
    torch_folder = str(Path(torch.__file__).parent)

    class Traced(type(module_of(base, logs=True))):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            files, frame = [], sys._getframe(1)
            while frame.f_back and frame.f_code is not trainer_class.fit.__code__:
                if not frame.f_code.co_filename.startswith(torch_folder):
                    files.append(frame.f_code.co_filename)
                frame = frame.f_back
            longest[:] = max(longest, files, key=len)
            return super().training_step(batch, batch_idx)

    class UserCallback(callback):
        def on_train_batch_end(self, *arguments: Any) -> None: ...

    settings = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "accumulate_grad_batches": 2,
        "precision": "bf16-mixed",
        "callbacks": [UserCallback()],
    } | options
    with tempfile.TemporaryDirectory() as folder, terminal():
        trainer = trainer_class(default_root_dir=folder, **settings)
        trainer.fit(Traced(), peer.loader(batches("list", 4)))
    return longest


def counts() -> Iterable[_table.Row]:
    """What can be counted instead of timed."""
    peer = _table.named(LIGHTNING.distribution)
    yield _table.Row(
        "Python calls a step above the hand-written loop, bare",
        "calls",
        renshu=calls_above_hand(RENSHU),
        peer=calls_above_hand(LIGHTNING),
        peer_version=peer,
        reach="<= 25",
    )
    ours, theirs = trace(RENSHU), trace(LIGHTNING)
    yield _table.Row(
        "frames between fit and training_step", "frames", len(ours), len(theirs), peer, "<= 5"
    )
    yield _table.Row(
        "files of these frames", "files", len(set(ours)), len(set(theirs)), peer, "<= 3"
    )


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows; quick takes fewer and shorter rounds."""
    quieten()
    yield from counts()
    steps, rounds = (300, 2) if quick else (STEPS, 7)
    for setting in SETTINGS:
        for kind in ("list", "DataLoader"):
            for epochs in EPOCHS:
                yield from times(kind, epochs, setting, steps, rounds)


def quieten() -> None:
    """One thread, and none of the trainers' advice."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with contextlib.redirect_stderr(io.StringIO()):
        LIGHTNING.classes()


if __name__ == "__main__":
    _table.main(__file__, measure)
