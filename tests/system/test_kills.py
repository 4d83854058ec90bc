"""SIGKILL at any moment of a long run: one command resumes it until it ends, bit-identical."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

import renshu
from killing import Noisy, Private, Validated, fit, in_child, lines, note, same
from renshu.callbacks import EarlyStopping, ModelCheckpoint
from renshu.checkpoints import format as checkpoint_format
from renshu.checkpoints import newest

FORK = multiprocessing.get_context("fork")


def _callbacks() -> list[Any]:
    return [
        ModelCheckpoint(every="3 steps", save_top_k=2, monitor="val_loss", save_last=True),
        EarlyStopping("val_loss", patience=1000),
    ]


def _end(trainer: Any, net: Any) -> Any:
    table = (Path(trainer.run_dir) / "metrics.csv").read_text()
    best = trainer.checkpoint_callback
    return net.state_dict(), table, sorted(Path(p).name for p in best.best_k_models)


def _run(name: str, workers: int, epochs: int, data: type[Noisy] = Noisy, **more: Any) -> Any:
    """The one command: it starts the run, and goes on with it."""
    return fit(
        lambda: DataLoader(data(40), 4, shuffle=True, num_workers=workers),
        Validated,
        lambda: DataLoader(Noisy(9), 4, num_workers=workers),
        run=name, resume="last", max_epochs=epochs, logger=True, log_every_n_steps=1,
        accumulate_grad_batches=2, val_check_interval=4, result=_end,
        **{"callbacks": _callbacks, **more},
    )  # fmt: skip


class Began(renshu.Callback):
    """Notes that training goes on: kills are counted from there."""

    def on_train_start(self, trainer: Any, module: Any) -> None:
        note(Path("began"), trainer.progress.batches)


def _killed_at_random(kills: int, workers: int, epochs: int, seed: int) -> None:
    """So many kills in all; a run that ends before they are done is compared, and another begun."""
    began = time.monotonic()
    whole = in_child(lambda: _run("whole", workers, epochs))
    seconds, moments = time.monotonic() - began, random.Random(seed)
    done = number = 0
    while done < kills:
        name, number = f"killed{number}", number + 1
        done += _kill_one_run(name, kills - done, workers, epochs, seconds / kills, moments)
        assert same(in_child(lambda name=name: _run(name, workers, epochs)), whole)
    assert done == kills


def _kill_one_run(
    name: str, kills: int, workers: int, epochs: int, pause: float, moments: random.Random
) -> int:
    """Start a run, kill it, start it again, until it ends or was killed so often; how often."""

    def run() -> None:
        _run(name, workers, epochs, callbacks=lambda: [*_callbacks(), Began()])
        note(Path("ended", name), "")

    Path("ended").mkdir(exist_ok=True)
    Path("began").unlink(missing_ok=True)
    done = 0
    while done < kills and not Path("ended", name).exists():
        process = FORK.Process(target=run)
        process.start()
        while len(lines(Path("began"))) <= done and process.is_alive():
            time.sleep(0.005)
        process.join(moments.uniform(0, 2 * pause + 0.15 * workers))
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            done += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    return done


# pains/trainer.md rows 1, 17
@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_twenty_kills_at_random_moments_change_nothing(workers: int) -> None:
    _killed_at_random(20, workers, epochs=30, seed=workers)


# pains/trainer.md rows 1, 17
@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(10))
def test_hundreds_of_kills_at_random_moments_change_nothing(seed: int) -> None:
    _killed_at_random(40, seed % 3, epochs=60, seed=100 + seed)


class KillInSave(renshu.Callback):
    """Kills the process while a save is written in the background, at its n-th file."""

    def __init__(self, file: int):
        self.left = file

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        write_file = checkpoint_format.write_file

        def killing(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return write_file(*arguments)

        checkpoint_format.write_file = killing


# pains/trainer.md row 17: 4 files a save, so these are in the second and third saves
@pytest.mark.parametrize("file", [5, 7, 8, 12])
def test_killed_while_saving_the_run_goes_on_from_the_save_before(file: int) -> None:
    whole = in_child(lambda: _run("whole", 0, 3))
    killer = lambda: [*_callbacks(), KillInSave(file)]  # noqa: E731
    in_child(lambda: _run("killed", 0, 3, callbacks=killer), killed=True)
    assert newest(Path("runs/killed/checkpoints")) is not None
    assert same(in_child(lambda: _run("killed", 0, 3)), whole)


# pains/trainer.md row 1: kept fast for every run of the tests
@pytest.mark.parametrize(("data", "workers"), [(Noisy, 0), (Private, 0), (Private, 2)])
def test_a_few_kills_in_a_row_change_nothing(data: type[Noisy], workers: int) -> None:
    whole = in_child(lambda: _run("whole", 0, 3, data))

    class KillAt(renshu.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            note(Path("batches"), trainer.progress.batches)
            if len(lines(Path("batches"))) % 9 == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(4):
        killer = lambda: [*_callbacks(), KillAt()]  # noqa: E731
        run = lambda: _run("killed", workers, 3, data, callbacks=killer)  # noqa: B023, E731
        in_child(run, killed=True)
    assert same(in_child(lambda: _run("killed", workers, 3, data)), whole)
