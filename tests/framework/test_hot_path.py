"""What a step costs, counted: Python calls, frames, torch operations, host syncs. Nothing timed."""

from __future__ import annotations

import collections
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

import renshu
from small_models import Classifier, digits, loader, trainer

EPOCH = 100


class Bare(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return cross_entropy(self.net(batch[0]), batch[1])


def batches() -> list[Any]:
    images, labels = digits(8)
    return [(images, labels)] * EPOCH


def by_hand(module: Classifier, data: Any, epochs: int) -> None:
    optimizer = module.configure_optimizers()
    for _ in range(epochs):
        for images, labels in data:
            optimizer.zero_grad()
            cross_entropy(module.net(images), labels).backward()
            optimizer.step()


def python_calls(run: Callable[[], object]) -> int:
    calls = 0

    def profile(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("kind", ["list", "loader"])
@pytest.mark.parametrize("epochs", [1, 5])
# pains/trainer.md row 9
def test_at_most_25_python_calls_a_step_above_the_loop_by_hand(kind: str, epochs: int) -> None:
    """Counted as the difference of two lengths, so that what happens once does not count."""
    data = batches() if kind == "list" else loader(8 * EPOCH)
    by_hand(Bare(), data, 1)  # whatever torch imports at its first step

    def ours(factor: int) -> int:
        run = trainer(barebones=True, max_epochs=epochs * factor)
        return python_calls(lambda: run.fit(Bare(), data))

    def theirs(factor: int) -> int:
        return python_calls(lambda: by_hand(Bare(), data, epochs * factor))

    steps = epochs * EPOCH
    above = ((ours(2) - ours(1)) - (theirs(2) - theirs(1))) / steps
    assert above <= 25


class Frames(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        frame, between = sys._getframe(1), []
        while frame is not None and frame.f_code.co_name != "fit_by_user":
            between.append((frame.f_code.co_filename, frame.f_code.co_name))
            frame = frame.f_back
        torch_own = str(Path(torch.__file__).parent)
        # The last one is Trainer.fit itself.
        self.between = [f for f in between[:-1] if not f[0].startswith(torch_own)]
        return super().training_step(batch, batch_idx)


class Listens(renshu.Callback):
    def on_train_batch_start(self, *_: Any) -> None: ...
    def on_train_batch_end(self, *_: Any) -> None: ...


def test_at_most_5_frames_in_3_files_between_fit_and_training_step() -> None:
    """With all defaults, a user callback, accumulation and bf16-mixed, as the design counts."""
    run = renshu.Trainer(
        accelerator="cpu", max_epochs=1, callbacks=[Listens()], accumulate_grad_batches=2,
        precision="bf16-mixed",
    )  # fmt: skip
    module = Frames()

    def fit_by_user() -> None:
        run.fit(module, loader(16), loader(16))

    fit_by_user()
    files = {name for name, _ in module.between}
    assert len(module.between) <= 5
    assert len(files) <= 3


class Operations(TorchDispatchMode):
    """Counts torch operations, and those that read a device value back to the host."""

    SYNCS = ("aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::equal")

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func._schema.name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def syncs(self) -> int:
        return sum(self.counts[name] for name in self.SYNCS)


class Logs(Classifier):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=True)
        self.log("half", loss.detach() / 2)
        return loss


# pains/trainer.md row 10
def test_nothing_is_read_back_in_a_step_outside_the_log_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two lengths of an epoch with the same number of log events differ by no host sync."""
    read: list[str] = []
    for name in ("tolist", "numpy", "cpu"):  # no operations of their own on the CPU
        method = getattr(torch.Tensor, name)

        def counted(self: Any, *given: Any, name: str = name, method: Any = method) -> Any:
            read.append(name)
            return method(self, *given)

        monkeypatch.setattr(torch.Tensor, name, counted)

    def syncs(steps: int) -> int:
        run = renshu.Trainer(
            accelerator="cpu", max_epochs=1, log_every_n_steps=steps, run=f"n{steps}",
            callbacks=[Listens()],
        )  # fmt: skip
        read.clear()
        with Operations() as seen:
            run.fit(Logs(), batches()[:steps], None)
        return seen.syncs + len(read)

    assert syncs(40) == syncs(80)


def test_at_most_4_torch_operations_a_step_above_the_loop_by_hand() -> None:
    def ours(steps: int) -> int:
        run = trainer(barebones=True, log_every_n_steps=10**6)
        with Operations() as seen:
            run.fit(Bare(), batches()[:steps])
        return sum(seen.counts.values())

    def theirs(steps: int) -> int:
        with Operations() as seen:
            by_hand(Bare(), batches()[:steps], 1)
        return sum(seen.counts.values())

    above = ((ours(80) - ours(40)) - (theirs(80) - theirs(40))) / 40
    # The detached loss that the look for NaN keeps, and its place in the one transfer.
    assert above <= 4


def test_hooks_are_bound_before_the_first_batch_and_not_looked_up_in_each_step() -> None:
    called: list[str] = []

    class Spy(Listens):
        def __getattribute__(self, name: str) -> Any:
            if name.startswith("on_train_batch"):
                called.append(name)
            return super().__getattribute__(name)

    trainer(callbacks=[Spy()]).fit(Bare(), batches())
    assert len(called) < 10 < EPOCH


def test_a_hook_that_nobody_overrides_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    hooks = [name for name in vars(renshu.Callback) if name.startswith("on_train_batch")]
    assert len(hooks) == 2
    for owner, name in [
        (owner, name) for owner in (renshu.Callback, renshu.Module) for name in hooks
    ]:
        monkeypatch.setattr(owner, name, lambda *_, name=name: called.append(name))
    trainer(callbacks=[renshu.Callback()]).fit(Bare(), batches())
    assert called == []
