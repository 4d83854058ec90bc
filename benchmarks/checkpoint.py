"""What a checkpoint costs: saving, loading, size, and how long training stands still for it.

The model has 11.8 million parameters and Adam's two moments, 142 MB in all. renshu writes
safetensors with SHA-256 sums and flushes them to the disk; for `torch.save` the same flush is
added, so that both files survive a loss of power. Training saves every 5 steps, in the background
with renshu. Median of the repeats, taken in turns.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import shutil
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import _table
from renshu import checkpoints

TORCH, LIGHTNING = _table.named("torch"), _table.named("pytorch-lightning")
WIDTH, LAYERS, EVERY = 1536, 5, 5


def network() -> nn.Module:
    """11.8 million parameters."""
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))


def state() -> dict[str, Any]:
    """Model and optimiser after one step."""
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(2, WIDTH)).square().mean().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def torch_save(tree: dict[str, Any], path: Path) -> None:
    """torch.save, and flushed to the disk."""
    with path.open("wb") as stream:
        torch.save(tree, stream)
        stream.flush()
        os.fsync(stream.fileno())


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def in_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each call, without a first round."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def files(folder: Path, rounds: int) -> Iterable[_table.Row]:
    """Saving, loading and size of the same state."""
    tree, ours, theirs = state(), folder / "step=000001", folder / "state.pt"
    save = in_turns(
        {
            "renshu": lambda: checkpoints.write(checkpoints.snapshot(tree), ours),
            "torch": lambda: torch_save(tree, theirs),
        },
        rounds,
    )
    load = in_turns(
        {
            "renshu": lambda: checkpoints.read(ours),
            "torch": lambda: torch.load(theirs, weights_only=True),
        },
        rounds,
    )
    peer = f"{TORCH}, torch.save and fsync, no sums"
    yield _table.Row("saving 142 MB until durable", "s", save["renshu"], save["torch"], peer)
    peer = f"{TORCH}, torch.load, unchecked"
    yield _table.Row("verifying and loading it", "s", load["renshu"], load["torch"], peer)
    mega = [size(path) / 1e6 for path in (ours, theirs)]
    yield _table.Row("size on the disk", "MB", mega[0], mega[1], TORCH)


def steps(package: str, module_name: str, count: int, saving: bool) -> list[float]:
    """Times from one training step's start to the next in a trainer that saves every 5 steps."""
    trainer_package = importlib.import_module(package)
    callbacks = importlib.import_module(f"{package}.callbacks")
    starts: list[float] = []

    class Regression(getattr(trainer_package, module_name)):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            starts.append(time.perf_counter())
            return self.net(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(torch.randn(count * 8, WIDTH), batch_size=8)

    with tempfile.TemporaryDirectory() as folder:
        saver = callbacks.ModelCheckpoint(dirpath=folder, every_n_train_steps=EVERY)
        trainer = trainer_package.Trainer(
            accelerator="cpu",
            max_epochs=1,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=saving,
            callbacks=[saver] if saving else [],
        )
        trainer.fit(Regression())
    return [after - before for before, after in itertools.pairwise(starts)]


def training(count: int) -> Iterable[_table.Row]:
    """How long the step after a save waits, and what a save costs the training in all."""
    stall, lost = {}, {}
    for package, name in (("renshu", "Module"), ("pytorch_lightning", "LightningModule")):
        plain = steps(package, name, count, saving=False)
        saved = steps(package, name, count, saving=True)
        # The gap after step 5, 10, … holds the save.
        gaps = saved[EVERY - 1 :: EVERY]
        stall[package] = (statistics.median(gaps) - statistics.median(plain)) * 1e3
        lost[package] = (sum(saved) - sum(plain)) / len(gaps) * 1e3
    yield _table.Row(
        "training stands still for a save of 142 MB",
        "ms",
        stall["renshu"],
        stall["pytorch_lightning"],
        LIGHTNING,
        reach="< peer",
    )
    yield _table.Row(
        "training time lost for a save in all, with what the background takes from two cores",
        "ms",
        lost["renshu"],
        lost["pytorch_lightning"],
        LIGHTNING,
    )


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    folder = Path(tempfile.mkdtemp())
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        yield from files(folder, 2 if quick else 7)
    yield from training(30 if quick else 150)


if __name__ == "__main__":
    _table.main(__file__, measure)
