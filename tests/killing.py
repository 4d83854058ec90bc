"""Runs of a fit in forked processes: uninterrupted, killed with SIGKILL at a batch, resumed."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import renshu
from renshu.callbacks import ModelCheckpoint

Fit = Callable[..., Any]

# The first optimiser of a process imports half of torch: once here instead of in each child.
torch.optim.SGD([torch.zeros(1)], lr=0.1)


def in_child(run: Callable[[], Any], *, killed: bool = False) -> Any:
    """Run in a forked process, with its result; `killed` expects the process to end by SIGKILL."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(_plain(run())))
    process.start()
    sender.close()
    # Not the pipe's end: workers of a killed process keep it open for some seconds.
    process.join()
    assert process.exitcode == (-signal.SIGKILL if killed else 0), process.exitcode
    return receiver.recv() if not killed else None


def _plain(value: Any) -> Any:
    """Tensors as arrays: torch's own way through a pipe needs the sender to stay alive."""
    if isinstance(value, Tensor):
        return value.detach().float().numpy().copy() if value.is_floating_point() else value.numpy()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def note(path: Path, text: object) -> None:
    """Append a line, from whatever process, in one write."""
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(file, f"{text}\n".encode())
    os.close(file)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


class Noisy(Dataset[Any]):
    """Sample i is (i, 4 numbers that depend on i and on all three global generators)."""

    def __init__(self, size: int = 23, reads: Path | None = None):
        self.size, self.reads = size, reads

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        if self.reads is not None:
            note(self.reads, int(index))
        noise = torch.randn(4) + float(np.random.randn()) + random.random()
        return index, torch.arange(4.0) * (int(index) + 1) / self.size + noise * 0.1


class Owner:
    """Draws from a generator of its own, seeded as MONAI's and albumentations' transforms are."""

    def __init__(self, method: str) -> None:
        self.R = np.random.RandomState(7)
        # In the class, where renshu looks for it.
        self.__class__ = type("Own", (Owner,), {method: Owner._seed})

    def _seed(self, seed: int) -> None:
        self.R = np.random.RandomState(seed)

    def draw(self) -> float:
        return float(self.R.uniform())


class Private(Noisy):
    """Samples that depend on the five kinds of generators that a data set may own."""

    def __init__(self, size: int = 23):
        super().__init__(size)
        self.numpy, self.torch = np.random.default_rng(1), torch.Generator().manual_seed(2)
        self.python, self.owners = random.Random(3), [Owner("set_random_state")]
        self.owners.append(Owner("set_random_seed"))

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        drawn = self.numpy.uniform() + self.python.uniform(0, 1)
        drawn += sum(owner.draw() for owner in self.owners)
        return index, torch.rand(4, generator=self.torch) + drawn + int(index) / self.size


class Net(renshu.Module):
    """Two layers with dropout; notes the sample ids it sees and keeps its losses."""

    def __init__(self, seen: Path | None = None) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 1))
        self.seen = seen

    def loss(self, x: Tensor) -> Tensor:
        return ((self.net(x) - x.sum(1, keepdim=True)) ** 2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        ids, x = batch
        if self.seen is not None:
            note(self.seen, f"{self.current_epoch} {batch_idx} {ids.tolist()}")
        loss = self.loss(x)
        self.log("loss", loss, on_step=True, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.002, momentum=0.9)


class Validated(Net):
    """Validates too, on data with random augmentation."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch[1]))


class SaveThenKill(renshu.Callback):
    """Saves after `save` batches of the fit, and kills the process `later` batches afterwards."""

    def __init__(self, save: int, later: int = 1):
        self.at, self.kill = save, save + later

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        if trainer.progress.batches == self.at:
            trainer.save_checkpoint(trainer.run_dir / "checkpoints" / f"at={self.at}")
        if trainer.progress.batches == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(
    loader: Callable[[], Any] = lambda: DataLoader(Noisy(), batch_size=4, shuffle=True),
    module: Callable[[], Any] = Net,
    val: Callable[[], Any] | None = None,
    callbacks: Callable[[], list[Any]] = list,
    resume: Any = None,
    datamodule: Callable[[], Any] | None = None,
    result: Callable[[Any, Any], Any] = lambda trainer, net: net.state_dict(),
    **options: Any,
) -> Any:
    """One fit from new objects, as a script started anew makes them; the final weights."""
    torch.manual_seed(11)
    random.seed(11)
    np.random.seed(11)
    defaults: dict[str, Any] = {
        "max_epochs": 4, "seed": 5, "enable_progress_bar": False, "enable_model_summary": False,
        "logger": False, "run": "r", "num_sanity_val_steps": 2,
    }  # fmt: skip
    found = callbacks()
    if not any(isinstance(callback, ModelCheckpoint) for callback in found):
        found = [*found, ModelCheckpoint(save_top_k=0)]
    trainer = renshu.Trainer(**{**defaults, **options}, callbacks=found)
    net = module()
    data = {"datamodule": datamodule()} if datamodule else {"train_dataloaders": loader()}
    if val is not None:
        data["val_dataloaders"] = val()
    trainer.fit(net, **data, ckpt_path=resume)
    return result(trainer, net)


def killed_and_resumed(save: int, later: int = 1, run: Fit = fit, **given: Any) -> Any:
    """Kill a fit that was saved after `save` batches, resume it in a new process."""
    callbacks = given.pop("callbacks", list)
    killer = [SaveThenKill(save, later)]
    name = f"killed-{save}-{len(list(Path.cwd().glob('runs/*')))}"
    in_child(lambda: run(callbacks=lambda: callbacks() + killer, run=name, **given), killed=True)
    checkpoint = Path("runs") / name / "checkpoints" / f"at={save}"
    return in_child(lambda: run(callbacks=callbacks, run=name, resume=checkpoint, **given))


def same(one: Any, other: Any) -> bool:
    """Bit-equal trees of arrays."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return one == other


def check_exact(save: int, later: int = 1, run: Fit = fit, **given: Any) -> Any:
    """The killed and resumed fit must end bit-equal to the uninterrupted one; returns its end."""
    whole = in_child(lambda: run(run=f"whole-{len(list(Path.cwd().glob('runs/*')))}", **given))
    assert same(whole, killed_and_resumed(save, later, run=run, **given))
    return whole
