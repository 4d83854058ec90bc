"""Ctrl-C and SIGTERM: the run stops between two batches, saves, and goes on exactly."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

import renshu
from killing import Net, Noisy, Validated, fit, in_child, lines, note, same
from renshu.checkpoints import newest
from renshu.signals import Signals


class SendSignal(renshu.Callback):
    """Sends a signal to the whole process group, as a terminal does, in a hook's n-th call."""

    def __init__(self, hook: str, call: int, number: int = signal.SIGINT):
        self.calls, self.at, self.number = 0, call, number
        setattr(self, hook, self._count)

    def _count(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == self.at:
            # From a process outside the group: torch's workers treat their parent's signals apart.
            group, sender = os.getpgid(0), os.fork()
            if not sender:
                os.setpgid(0, 0)
                os.killpg(group, self.number)
                os._exit(0)
            os.waitpid(sender, 0)


def signalled(hook: str, call: int = 1, number: int = signal.SIGINT, **given: Any) -> Any:
    """In a process group of its own: what fit says of itself afterwards."""

    def end(trainer: Any, net: Any) -> Any:
        alive = len(multiprocessing.active_children())
        return trainer.interrupted, trainer.progress.batches, alive

    def run() -> Any:
        os.setpgid(0, 0)
        sender = [SendSignal(hook, call, number)]
        return fit(callbacks=lambda: sender, result=end, **given)

    return in_child(run)


def _loader(workers: int = 0) -> Any:
    return DataLoader(Noisy(), 4, shuffle=True, num_workers=workers)


def _val(workers: int = 0) -> Any:
    return DataLoader(Noisy(9), 2, num_workers=workers)


# pains/trainer.md rows 1, 32
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_returns_saves_and_leaves_no_worker(
    workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"loader": lambda: _loader(workers), "accumulate_grad_batches": 3}
    assert signalled("on_train_batch_end", 8, **options) == [True, 8, 0]
    said = capfd.readouterr().err
    assert 'Trainer(run="r") and ckpt_path="last"' in said
    assert "Traceback" not in said
    resumed = in_child(lambda: fit(**options, resume="last"))
    assert same(resumed, in_child(lambda: fit(**options, run="whole")))


class Metric(Validated):
    """Validates with a metric object, and draws random numbers while validating."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.mean(self.loss(batch[1]) + torch.rand(()))
        self.log("val_loss", self.mean, on_epoch=True)


# pains/trainer.md row 32
@pytest.mark.parametrize("workers", [0, 1])
def test_ctrl_c_during_validation_is_made_good_by_validating_again(workers: int) -> None:
    def end(trainer: Any, net: Any) -> Any:
        return net.state_dict(), float(trainer.callback_metrics["val_loss"])

    options: dict[str, Any] = {"val": lambda: _val(workers), "max_epochs": 2}
    # 2 batches of the sanity check, 5 of the first epoch: this is the second epoch's third.
    stopped = signalled("on_validation_batch_end", 10, module=Metric, **options)
    assert stopped == [True, 12, 0]
    resumed = in_child(lambda: fit(module=Metric, **options, result=end, resume="last"))
    assert same(resumed, in_child(lambda: fit(module=Metric, **options, result=end, run="whole")))


# pains/trainer.md row 32
@pytest.mark.parametrize("hook", ["on_sanity_check_start", "on_validation_batch_end"])
def test_ctrl_c_during_the_sanity_check_saves_the_beginning(hook: str) -> None:
    options: dict[str, Any] = {"module": Validated, "val": _val, "max_epochs": 2}
    assert signalled(hook, 1, **options) == [True, 0, 0]
    resumed = in_child(lambda: fit(**options, resume="last"))
    assert same(resumed, in_child(lambda: fit(**options, run="whole")))


# pains/trainer.md row 1
def test_ctrl_c_right_after_a_resume_loses_nothing() -> None:
    options: dict[str, Any] = {"loader": lambda: DataLoader(Noisy(22), 4, sampler=range(22))}
    assert signalled("on_train_batch_end", 8, **options) == [True, 8, 0]
    assert signalled("on_train_start", 1, resume="last", **options) == [True, 8, 0]
    resumed = in_child(lambda: fit(**options, resume="last"))
    assert same(resumed, in_child(lambda: fit(**options, run="whole")))


def _wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


class Stuck(Net):
    """Its third step never ends."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.trainer.progress.batches == 2:
            note(Path("stuck"), os.getpid())
            while True:
                time.sleep(0.01)
        return super().training_step(batch, batch_idx)


def _started(run: Any) -> Any:
    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


# pains/trainer.md row 32
def test_a_second_ctrl_c_ends_at_once(run_dir: Path) -> None:
    def run() -> None:
        try:
            fit(module=Stuck)
        except KeyboardInterrupt:
            note(run_dir / "raised", "")

    process = _started(run)
    _wait_for(run_dir / "stuck")
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    assert process.is_alive() and not (run_dir / "raised").exists()
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    assert process.exitcode == 0 and (run_dir / "raised").exists()


# pains/trainer.md row 16
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_ends_with_143_and_the_state_saved(workers: int) -> None:
    def run() -> None:
        os.setpgid(0, 0)
        sender = [SendSignal("on_train_batch_end", 8, signal.SIGTERM)]
        fit(lambda: _loader(workers), callbacks=lambda: sender)

    process = _started(run)
    process.join(120)
    assert process.exitcode == 143
    resumed = in_child(lambda: fit(lambda: _loader(workers), resume="last"))
    assert same(resumed, in_child(lambda: fit(lambda: _loader(workers), run="whole")))


def test_ctrl_c_without_checkpoints_returns_and_says_that_nothing_is_saved(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def run() -> Any:
        os.setpgid(0, 0)
        trainer = renshu.Trainer(
            max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[SendSignal("on_train_batch_end", 2)],
        )  # fmt: skip
        trainer.fit(Net(), _loader())
        return trainer.interrupted, trainer.global_step, Path("runs").exists()

    assert in_child(run) == [True, 2, False]
    assert "nothing was saved, since checkpoints are off" in capfd.readouterr().err


def test_the_handlers_are_those_from_before() -> None:
    def run() -> Any:
        def mine(*_: Any) -> None: ...

        signal.signal(signal.SIGTERM, mine)
        before = signal.getsignal(signal.SIGINT)
        fit(max_epochs=1)
        after_fit = signal.getsignal(signal.SIGINT) is before
        return after_fit, signal.getsignal(signal.SIGTERM) is mine

    assert in_child(run) == [True, True]


def test_the_handlers_come_back_after_an_error() -> None:
    class Broken(Net):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ValueError("broken step")

    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ValueError, match="broken step"):
        fit(module=Broken)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_fit_in_another_thread_works() -> None:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(fit(max_epochs=1)))
    thread.start()
    thread.join(120)
    assert found and same(
        {k: v.numpy() for k, v in found[0].items()}, in_child(lambda: fit(max_epochs=1, run="main"))
    )


def test_the_handler_sets_a_flag_and_nothing_else() -> None:
    class Plan:
        signal: int | None = None
        asked: int | None = None
        halt, alone = False, True

    plan = Plan()
    with Signals(plan):  # type: ignore[arg-type]
        signal.raise_signal(signal.SIGINT)
        assert (plan.signal, plan.halt) == (signal.SIGINT, True)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


# pains/trainer.md row 16
@pytest.mark.slow
def test_sigterm_at_any_moment_leaves_a_state_to_go_on_from(run_dir: Path) -> None:
    began = time.monotonic()
    whole = in_child(lambda: fit(max_epochs=20, run="whole", val=_val, module=Validated))
    pause = time.monotonic() - began

    def run() -> Any:
        weights = fit(max_epochs=20, val=_val, module=Validated, resume="last")
        note(run_dir / "ended", "")
        return weights

    for number in range(30):
        process = _started(run)
        # A machine that is slow to start is slow to train: moments by its own measure.
        process.join(pause * (0.3 + 0.1 * (number % 7)))
        if process.is_alive():
            os.kill(process.pid, signal.SIGTERM)
        process.join(60)
        # Before fit has begun SIGTERM ends the process as it does any.
        assert process.exitcode in (0, 143, -signal.SIGTERM)
        if lines(run_dir / "ended"):
            break
    assert newest(run_dir / "runs" / "r" / "checkpoints") is not None
    assert same(in_child(run), whole)
