"""Every optimiser and scheduler of torch goes on from a checkpoint as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler as lrs
from torch.optim.swa_utils import SWALR

from renshu.checkpoints import read, snapshot, write
from renshu.checkpoints.restore import (
    capture_optimizer,
    capture_scheduler,
    restore_optimizer,
    restore_scheduler,
)
from renshu.errors import CheckpointError

pytestmark = pytest.mark.usefixtures("no_fsync")
Make = Callable[[list[nn.Parameter]], optim.Optimizer]


def _groups(params: list[nn.Parameter], **second: Any) -> list[dict[str, Any]]:
    return [{"params": params[:1]}, {"params": params[1:], **second}]


OPTIMISERS: dict[str, tuple[type, Make]] = {
    "ASGD": (optim.ASGD, lambda p: optim.ASGD(p, lr=0.01, t0=2)),
    "Adadelta": (optim.Adadelta, lambda p: optim.Adadelta(p, lr=0.5)),
    "Adafactor": (optim.Adafactor, lambda p: optim.Adafactor(p, lr=0.05)),
    "Adagrad": (optim.Adagrad, lambda p: optim.Adagrad(p, lr=0.05, lr_decay=0.1)),
    "Adam": (optim.Adam, lambda p: optim.Adam(_groups(p, lr=0.02), lr=0.01, amsgrad=True)),
    "Adam fused": (optim.Adam, lambda p: optim.Adam(p, lr=0.01, fused=True)),
    "Adam tensor lr": (optim.Adam, lambda p: optim.Adam(p, lr=torch.tensor(0.01))),
    "AdamW": (optim.AdamW, lambda p: optim.AdamW(p, lr=0.01)),
    "AdamW foreach": (optim.AdamW, lambda p: optim.AdamW(p, lr=0.01, foreach=True)),
    "Adamax": (optim.Adamax, lambda p: optim.Adamax(p, lr=0.01)),
    "LBFGS": (optim.LBFGS, lambda p: optim.LBFGS(p, lr=0.1, max_iter=3, history_size=3)),
    "LBFGS wolfe": (optim.LBFGS, lambda p: optim.LBFGS(p, line_search_fn="strong_wolfe")),
    "Muon": (optim.Muon, lambda p: optim.Muon([q for q in p if q.ndim == 2], lr=0.01)),
    "NAdam": (optim.NAdam, lambda p: optim.NAdam(p, lr=0.01)),
    "RAdam": (optim.RAdam, lambda p: optim.RAdam(p, lr=0.01)),
    "RMSprop": (optim.RMSprop, lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True)),
    "Rprop": (optim.Rprop, lambda p: optim.Rprop(p, lr=0.01)),
    "SGD": (optim.SGD, lambda p: optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True)),
    "SparseAdam": (optim.SparseAdam, lambda p: optim.SparseAdam(p, lr=0.01)),
}
SCHEDULERS: dict[str, tuple[type, Callable[[optim.Optimizer], Any]]] = {
    "ChainedScheduler": (
        lrs.ChainedScheduler,
        lambda o: lrs.ChainedScheduler([lrs.LinearLR(o, 0.5, total_iters=3), lrs.StepLR(o, 2)]),
    ),
    "Chained of Sequential": (
        lrs.ChainedScheduler,
        lambda o: lrs.ChainedScheduler(
            [
                lrs.SequentialLR(o, [lrs.ConstantLR(o, 0.5), lrs.StepLR(o, 2)], [3]),
                lrs.ExponentialLR(o, 0.9),
            ]
        ),
    ),
    "ConstantLR": (lrs.ConstantLR, lambda o: lrs.ConstantLR(o, 0.5, total_iters=4)),
    "CosineAnnealingLR": (lrs.CosineAnnealingLR, lambda o: lrs.CosineAnnealingLR(o, 7)),
    "CosineAnnealingWarmRestarts": (
        lrs.CosineAnnealingWarmRestarts,
        lambda o: lrs.CosineAnnealingWarmRestarts(o, 3, T_mult=2),
    ),
    "CyclicLR": (lrs.CyclicLR, lambda o: lrs.CyclicLR(o, 0.001, 0.1, 2, mode="triangular2")),
    "CyclicLR exp": (lrs.CyclicLR, lambda o: lrs.CyclicLR(o, 0.001, 0.1, 2, mode="exp_range")),
    "CyclicLR own": (lrs.CyclicLR, lambda o: lrs.CyclicLR(o, 0.001, 0.1, 2, scale_fn=_halved)),
    "ExponentialLR": (lrs.ExponentialLR, lambda o: lrs.ExponentialLR(o, 0.9)),
    "LambdaLR": (lrs.LambdaLR, lambda o: lrs.LambdaLR(o, lambda n: 0.9**n)),
    "LambdaLR object": (lrs.LambdaLR, lambda o: lrs.LambdaLR(o, Calls())),
    "LinearLR": (lrs.LinearLR, lambda o: lrs.LinearLR(o, 0.1, total_iters=6)),
    "MultiStepLR": (lrs.MultiStepLR, lambda o: lrs.MultiStepLR(o, [2, 5, 5, 7], 0.5)),
    "MultiplicativeLR": (lrs.MultiplicativeLR, lambda o: lrs.MultiplicativeLR(o, lambda n: 0.95)),
    "OneCycleLR": (lrs.OneCycleLR, lambda o: lrs.OneCycleLR(o, 0.1, total_steps=12)),
    "PolynomialLR": (lrs.PolynomialLR, lambda o: lrs.PolynomialLR(o, 8, 2.0)),
    "ReduceLROnPlateau": (
        lrs.ReduceLROnPlateau,
        lambda o: lrs.ReduceLROnPlateau(o, patience=1, cooldown=1),
    ),
    "SWALR": (SWALR, lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=5)),
    "SequentialLR": (
        lrs.SequentialLR,
        lambda o: lrs.SequentialLR(o, [lrs.LinearLR(o, 0.1), lrs.CosineAnnealingLR(o, 4)], [4]),
    ),
    "Sequential of Chained": (
        lrs.SequentialLR,
        lambda o: lrs.SequentialLR(
            o,
            [
                lrs.ChainedScheduler([lrs.LinearLR(o, 0.5), lrs.ConstantLR(o, 0.5)]),
                lrs.MultiStepLR(o, [1, 2]),
            ],
            [4],
        ),
    ),
    "StepLR": (lrs.StepLR, lambda o: lrs.StepLR(o, 3, 0.5)),
}


class Calls:
    """A factor with a state of its own, which torch saves."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, step: int) -> float:
        self.count += 1
        return 1 / self.count


def _halved(x: float) -> float:
    return 0.5**x


def test_every_optimiser_and_scheduler_of_torch_is_in_the_tables() -> None:
    """A class that a new torch brings must be tried before it can be relied on."""
    there = {c for c in vars(optim).values() if _is(c, optim.Optimizer)} - {optim.Optimizer}
    assert there == {kind for kind, _ in OPTIMISERS.values()}
    there = {c for c in vars(lrs).values() if _is(c, lrs.LRScheduler)}
    there -= {lrs.LRScheduler, lrs._LRScheduler}
    assert there | {SWALR} == {kind for kind, _ in SCHEDULERS.values()}


def _is(thing: object, base: type) -> bool:
    return isinstance(thing, type) and issubclass(thing, base)


class Run:
    """A small training with nothing random after its start."""

    def __init__(
        self,
        make: Make,
        schedule: Callable[[optim.Optimizer], Any] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        draw = torch.Generator().manual_seed(1)
        self.params = [
            nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for shape in ((5, 4), (4, 3))
        ]
        self.data = [torch.randn(8, 5, generator=draw).to(dtype) for _ in range(20)]
        self.optimizer = make(self.params)
        self.scheduler = None if schedule is None else schedule(self.optimizer)
        self.rates: list[list[float]] = []

    def steps(self, first: int, last: int) -> None:
        for i in range(first, last):
            self._step(self.data[i])
            if isinstance(self.scheduler, lrs.ReduceLROnPlateau):
                self.scheduler.step([5.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0][i % 7])
            elif self.scheduler is not None:
                self.scheduler.step()
            groups = self.optimizer.param_groups
            self.rates.append([float(group["lr"]) for group in groups])

    def _step(self, x: Tensor) -> None:
        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = (torch.tanh(x @ self.params[0]) @ self.params[1] - 1).square().mean()
            loss.backward()
            if isinstance(self.optimizer, optim.SparseAdam):
                for param in self.params:
                    assert param.grad is not None
                    param.grad = param.grad.to_sparse()
            return loss

        self.optimizer.step(closure)

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "model": {str(i): p for i, p in enumerate(self.params)},
            "optimizer": capture_optimizer(self.optimizer),
        }
        if self.scheduler is not None:
            state["scheduler"] = capture_scheduler(self.scheduler)
        write(snapshot(state), path)

    def load(self, path: Path) -> None:
        state = read(path)
        with torch.no_grad():
            for i, param in enumerate(self.params):
                param.copy_(state["model"][str(i)])
        if self.scheduler is not None:
            restore_scheduler(self.scheduler, state["scheduler"])
        restore_optimizer(self.optimizer, state["optimizer"])


def _sgd(params: list[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(params, lr=0.1, momentum=0.9)


def _sgd_tensor(params: list[nn.Parameter]) -> optim.Optimizer:
    return optim.SGD(params, lr=torch.tensor(0.1), momentum=0.9)


def _check_resume(make: Callable[[], Run], path: Path, at: int, end: int = 12) -> None:
    whole, killed, resumed = make(), make(), make()
    whole.steps(0, end)
    killed.steps(0, at)
    killed.save(path)
    killed.steps(at, at + 1)  # the snapshot must not see this
    resumed.load(path)
    resumed.steps(at, end)
    assert resumed.rates == whole.rates[at:]
    for one, other in zip(whole.params, resumed.params, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(make().params[0], whole.params[0]), "the training did nothing"


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimiser_resumes_bit_equal(name: str, tmp_path: Path) -> None:
    _check_resume(lambda: Run(OPTIMISERS[name][1]), tmp_path / "step=5", at=5)


# SequentialLR passes the epoch at a milestone, which torch itself calls deprecated, and
# ChainedScheduler steps inside SequentialLR's constructor.
QUIET = (
    pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning"),
)


@pytest.mark.parametrize("at", [0, 1, 4, 5, 9])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=QUIET if "Seq" in name else ()) for name in SCHEDULERS]
)
def test_scheduler_resumes_bit_equal(name: str, at: int, tmp_path: Path) -> None:
    """At several moments: MultiStepLR's milestones are int keys that plain JSON would lose."""
    make = _sgd_tensor if name == "StepLR" else _sgd
    _check_resume(lambda: Run(make, SCHEDULERS[name][1]), tmp_path / "c", at=at)


@pytest.mark.parametrize("at", range(9))
def test_milestones_fire_once_wherever_the_run_was_cut(at: int, tmp_path: Path) -> None:
    run, fresh = (Run(_sgd, lambda o: lrs.MultiStepLR(o, [2, 5, 5, 7], 0.5)) for _ in range(2))
    run.steps(0, at)
    run.save(tmp_path / "c")
    fresh.load(tmp_path / "c")
    fresh.steps(at, 10)
    expected = [0.1 * 0.5**n for n in (0, 1, 1, 1, 3, 3, 4, 4, 4, 4)]
    assert [rate for (rate,) in fresh.rates] == pytest.approx(expected[at:])


def test_tensor_learning_rate_stays_a_tensor(tmp_path: Path) -> None:
    run, fresh = (Run(_sgd_tensor, lambda o: lrs.ExponentialLR(o, 0.9)) for _ in range(2))
    run.steps(0, 3)
    run.save(tmp_path / "c")
    fresh.load(tmp_path / "c")
    rate = fresh.optimizer.param_groups[0]["lr"]
    assert isinstance(rate, Tensor)
    assert torch.equal(rate, run.optimizer.param_groups[0]["lr"])


def test_fp32_moments_of_bf16_parameters_keep_their_precision(tmp_path: Path) -> None:
    """`Optimizer.load_state_dict` would cast them to bfloat16."""

    def make() -> Run:
        run = Run(lambda p: optim.Adam(p, lr=0.01), dtype=torch.bfloat16)
        for param in run.params:
            run.optimizer.state[param] = {
                "step": torch.tensor(0.0),
                "exp_avg": torch.zeros(param.shape),
                "exp_avg_sq": torch.zeros(param.shape),
            }
        return run

    run, fresh = make(), make()
    for moment in (s["exp_avg"] for s in run.optimizer.state.values()):
        moment.copy_(torch.rand(moment.shape))  # not representable in bfloat16
    run.save(tmp_path / "c")
    fresh.load(tmp_path / "c")
    for one, other in zip(run.params, fresh.params, strict=True):
        saved, loaded = run.optimizer.state[one], fresh.optimizer.state[other]
        assert loaded["exp_avg"].dtype == torch.float32
        assert torch.equal(saved["exp_avg"], loaded["exp_avg"])


def test_restored_state_is_a_copy(tmp_path: Path) -> None:
    run, fresh = (Run(lambda p: optim.Adam(p, lr=0.01)) for _ in range(2))
    run.steps(0, 2)
    state = capture_optimizer(run.optimizer)
    restore_optimizer(fresh.optimizer, state)
    before = {i: s["exp_avg"].clone() for i, s in state["state"].items()}
    fresh.steps(2, 4)
    assert all(torch.equal(before[i], s["exp_avg"]) for i, s in state["state"].items())


def test_scheduler_kept_as_an_attribute_is_restored() -> None:
    class Warmup(lrs.LRScheduler):
        def __init__(self, optimizer: optim.Optimizer) -> None:
            self.after = lrs.StepLR(optimizer, 2)
            super().__init__(optimizer)

        def get_lr(self) -> list[float | Tensor]:
            return list(self.base_lrs)

    one, other = (Warmup(optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)) for _ in range(2))
    one.optimizer.step()
    one.after.step()
    one.after.step()
    restore_scheduler(other, capture_scheduler(one))
    assert other.after.last_epoch == one.after.last_epoch == 2
    assert other.after.optimizer is other.optimizer


WRONG: dict[str, tuple[Make, str]] = {
    "another class": (lambda p: optim.SGD(p, lr=0.1), "optimizer is SGD, the checkpoint has Adam"),
    "fewer groups": (
        lambda p: optim.Adam(p),
        r"groups\[0\]\.params\[1\] is \[4, 3\], the checkpoint has nothing",
    ),
    "other split": (
        lambda p: optim.Adam([{"params": p}, {"params": [nn.Parameter(torch.ones(1))]}]),
        r"params\[1\] is \[4, 3\], the checkpoint has nothing",
    ),
    "other order": (
        lambda p: optim.Adam(_groups(p[::-1])),
        r"params\[0\] is \[4, 3\], the checkpoint has \[5, 4\]",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_optimiser_state_of_another_model_is_refused(name: str) -> None:
    make, message = WRONG[name]
    run = Run(lambda p: optim.Adam(_groups(p)))
    run.steps(0, 1)
    with pytest.raises(CheckpointError, match=message):
        restore_optimizer(Run(make).optimizer, capture_optimizer(run.optimizer))


def test_scheduler_of_another_kind_is_refused() -> None:
    optimizer = optim.SGD([nn.Parameter(torch.ones(1))], lr=1.0)
    saved = capture_scheduler(SCHEDULERS["SequentialLR"][1](optimizer))
    with pytest.raises(CheckpointError, match="StepLR, the checkpoint has SequentialLR"):
        restore_scheduler(lrs.StepLR(optimizer, 1), saved)
    swapped = lrs.SequentialLR(
        optimizer, [lrs.StepLR(optimizer, 1), lrs.CosineAnnealingLR(optimizer, 4)], [4]
    )
    with pytest.raises(CheckpointError, match=r"_schedulers\[0\] is StepLR"):
        restore_scheduler(swapped, saved)
    longer = lrs.ChainedScheduler([lrs.StepLR(optimizer, 1), lrs.StepLR(optimizer, 2)])
    one = capture_scheduler(lrs.ChainedScheduler([lrs.StepLR(optimizer, 1)]))
    with pytest.raises(CheckpointError, match="_schedulers is 2, the checkpoint has 1"):
        restore_scheduler(longer, one)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step:UserWarning")
def test_captured_trees_hold_no_code() -> None:
    for _, make in SCHEDULERS.values():
        _assert_plain(capture_scheduler(Run(_sgd, make).scheduler))


def _assert_plain(tree: Any) -> None:
    assert not callable(tree)
    assert not isinstance(tree, optim.Optimizer)
    for item in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _assert_plain(item)
