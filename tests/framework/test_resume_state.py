"""All state comes back from a checkpoint: optimisers, schedules, metrics, callbacks."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

import renshu
from killing import Net, Noisy, SaveThenKill, Validated, check_exact, fit, in_child, same
from renshu.callbacks import EarlyStopping, ModelCheckpoint


def _val() -> Any:
    return DataLoader(Noisy(9), 4)


def _with(optimise: Callable[[Any], Any], base: type[Net] = Validated) -> type[Net]:
    class Made(base):  # type: ignore[misc, valid-type]
        def configure_optimizers(self) -> Any:
            return optimise(self.parameters())

    return Made


optim, schedules = torch.optim, torch.optim.lr_scheduler
OPTIMISERS: dict[str, Callable[[Any], Any]] = {
    "SGD with momentum": lambda p: optim.SGD(p, 0.002, momentum=0.9, nesterov=True),
    "AdamW amsgrad": lambda p: optim.AdamW(p, 0.01, amsgrad=True),
    "Adagrad": lambda p: optim.Adagrad(p, 0.05, lr_decay=0.01),
    "LBFGS": lambda p: optim.LBFGS(p, 0.1, max_iter=3, history_size=4),
    "ASGD": lambda p: optim.ASGD(p, 0.002, t0=3),
    "Rprop": lambda p: optim.Rprop(p, 0.002),
}


def _scheduled(schedule: Callable[[Any], Any], **config: Any) -> Callable[[Any], Any]:
    def optimise(parameters: Any) -> Any:
        optimizer = optim.SGD(parameters, 0.002, momentum=0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule(optimizer), **config},
        }

    return optimise


SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "by step": _scheduled(lambda o: schedules.OneCycleLR(o, 0.01, total_steps=24), interval="step"),
    "by epoch": _scheduled(lambda o: schedules.MultiStepLR(o, [1, 3], 0.5)),
    "plateau": _scheduled(
        lambda o: schedules.ReduceLROnPlateau(o, factor=0.5, patience=0), monitor="val_loss"
    ),
    "sequence": _scheduled(
        lambda o: schedules.SequentialLR(
            o, [schedules.LinearLR(o, 0.1), schedules.ExponentialLR(o, 0.9)], [7]
        ),
        interval="step",
        frequency=2,
    ),
}


# pains/trainer.md row 1
@pytest.mark.parametrize("name", [*OPTIMISERS, *SCHEDULES])
def test_optimisers_and_schedules_go_on(name: str) -> None:
    made = _with({**OPTIMISERS, **SCHEDULES}[name])

    def end(trainer: Any, net: Any) -> Any:
        return net.state_dict(), [o.param_groups[0]["lr"] for o in trainer.optimizers]

    check_exact(14, module=made, val=_val, result=end)


# pains/trainer.md row 22
def test_two_optimisers_go_on() -> None:
    class Two(Net):
        def configure_optimizers(self) -> Any:
            first, last = optim.Adam(self.net[0].parameters(), 0.01), optim.SGD(
                self.net[2].parameters(), 0.002, momentum=0.9
            )  # fmt: skip
            return [first, last], [schedules.StepLR(first, 2), schedules.ExponentialLR(last, 0.9)]

    check_exact(14, module=Two, accumulate_grad_batches=3)


# pains/trainer.md row 21
def test_manual_optimisation_goes_on_with_half_summed_gradients() -> None:
    class Manual(Net):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> None:
            loss = self.loss(batch[1])
            self.manual_backward(loss / 4)
            if (batch_idx + 1) % 4 == 0:
                optimizer = self.optimizers()
                optimizer.step()
                optimizer.zero_grad()

    check_exact(15, module=Manual)


class Overflows(Net):
    """Some losses are so large that float16 gradients are infinite."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * 1e30 if batch_idx % 5 == 2 else loss


# pains/trainer.md row 24
@pytest.mark.parametrize("save", [3, 14])
def test_the_scaler_goes_on(save: int) -> None:
    def end(trainer: Any, net: Any) -> Any:
        return net.state_dict(), trainer.precision.state_dict(), trainer.progress.skipped

    _, scaler, skipped = check_exact(
        save, module=Overflows, precision="16-mixed", accumulate_grad_batches=2, result=end,
        on_nonfinite="ignore",
    )  # fmt: skip
    assert skipped > 0 and scaler["scale"] < 65536


# pains/trainer.md row 1
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_every_precision_goes_on(precision: str) -> None:
    def end(trainer: Any, net: Any) -> Any:
        kinds = {
            str(value.dtype)
            for optimizer in trainer.optimizers
            for state in optimizer.state.values()
            for value in state.values()
        }
        return {k: v.detach().double().numpy() for k, v in net.state_dict().items()}, sorted(kinds)

    made = _with(OPTIMISERS["AdamW amsgrad"], Net)
    check_exact(14, module=made, precision=precision, accumulate_grad_batches=3, result=end)


class Measured(Validated):
    """Logs means over the epoch and a metric object, in training and validation."""

    def __init__(self) -> None:
        super().__init__()
        self.mean, self.val_mean = MeanMetric(), MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.mean(loss, weight=len(batch[0]))
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        self.log("largest", loss, on_step=False, on_epoch=True, reduce_fx="max")
        self.log("count", float(len(batch[0])), on_step=False, on_epoch=True, reduce_fx="sum")
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.val_mean(self.loss(batch[1]))
        self.log("val_mean", self.val_mean)


# pains/trainer.md rows 1, 29
@pytest.mark.parametrize("save", [14, 18, pytest.param(12, marks=pytest.mark.slow)])
def test_logged_values_are_those_of_the_uninterrupted_run_each_step_once(save: int) -> None:
    def end(trainer: Any, net: Any) -> Any:
        values = {k: float(v) for k, v in trainer.callback_metrics.items()}
        return values, (Path(trainer.run_dir) / "metrics.csv").read_text()

    values, table = check_exact(
        save, later=3, module=Measured, val=_val, logger=True, log_every_n_steps=1, result=end
    )
    assert values["mean"] == pytest.approx(values["loss_epoch"], rel=1e-6)
    assert values["count"] == 23
    steps = [int(row["step"]) for row in csv.DictReader(table.splitlines())]
    assert steps == list(range(24))


# pains/trainer.md row 27
@pytest.mark.parametrize("save", [8, 13])
def test_early_stopping_and_the_best_checkpoints_go_on(save: int) -> None:
    def callbacks() -> list[Any]:
        stop = EarlyStopping("val_loss", patience=2, min_delta=0.05)
        return [stop, ModelCheckpoint(monitor="val_loss", save_top_k=2)]

    def end(trainer: Any, net: Any) -> Any:
        stop, best = trainer.callbacks[0], trainer.checkpoint_callback
        names = sorted(p.name for p in best.dirpath.iterdir() if p.name.startswith("step"))
        score = float(best.best_model_score)
        return stop.wait_count, stop.stopped_epoch, score, names, trainer.global_step

    found = check_exact(
        save, later=2, module=Validated, val=_val, callbacks=callbacks, result=end, max_epochs=12
    )
    assert found[1] > 0


# pains/trainer.md row 1
def test_the_mean_of_the_weights_goes_on() -> None:
    from renshu.callbacks.ema import EMA

    check_exact(14, callbacks=lambda: [EMA(decay=0.9)], val=_val, module=Validated)


class OwnGenerators(Net):
    """Its noise comes from generators that it keeps, and its hooks draw as well."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = torch.Generator().manual_seed(1)
        self.numbers = np.random.default_rng(2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        scale = torch.rand((), generator=self.noise) + self.numbers.random()
        return loss * scale * (random.random() + np.random.rand())


# pains/trainer.md row 1
@pytest.mark.parametrize("save", [14, 18])
def test_generators_of_a_module_go_on(save: int) -> None:
    check_exact(save, module=OwnGenerators)


class Sparse(Validated):
    """Parts that are frozen, in eval mode, or buffers outside the state_dict."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen_so_far", torch.zeros(()), persistent=False)
        self.norm = torch.nn.BatchNorm1d(4)

    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.net[0].requires_grad_(False)
            self.norm.eval()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.seen_so_far += 1
        x = self.norm(batch[1])
        return self.loss(x + self.seen_so_far * 0.01)


# pains/trainer.md rows 1, 35
def test_frozen_parts_modes_and_unsaved_buffers_go_on() -> None:
    check_exact(14, module=Sparse, val=_val)


# pains/trainer.md row 1
def test_a_save_inside_a_step_goes_on_with_that_step() -> None:
    class Saves(Net):
        def __init__(self) -> None:
            super().__init__()
            # What the step drew before the save would be drawn again after it.
            self.net[1] = torch.nn.Identity()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if self.trainer.progress.batches == 8:
                self.trainer.save_checkpoint(Path("inside"))
            return super().training_step(batch, batch_idx)

    def loader() -> Any:
        return DataLoader(Noisy(22), 4, sampler=_Drawn())

    whole = in_child(lambda: fit(loader, Saves, run="whole"))
    assert same(whole, in_child(lambda: fit(loader, Saves, run="again", resume="inside")))


class _Drawn(torch.utils.data.Sampler[int]):
    def __len__(self) -> int:
        return 22

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(22).tolist())


# pains/trainer.md row 36
def test_a_second_fit_trains_as_a_new_trainer_would() -> None:
    def twice() -> Any:
        options: dict[str, Any] = {
            "max_epochs": 2, "logger": False, "enable_progress_bar": False, "seed": 5,
            "enable_model_summary": False,
        }  # fmt: skip
        trainer = renshu.Trainer(**options)
        trainer.fit(Net(), DataLoader(Noisy(), 4, shuffle=True))
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        second = Net()
        trainer.fit(second, DataLoader(Noisy(), 4, shuffle=True))
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        other = Net()
        renshu.Trainer(**options).fit(other, DataLoader(Noisy(), 4, shuffle=True))
        return second.state_dict(), other.state_dict(), trainer.global_step

    second, other, steps = in_child(twice)
    assert same(second, other) and steps == 12


def _killed(**given: Any) -> None:
    in_child(lambda: fit(callbacks=lambda: [SaveThenKill(8)], **given), killed=True)


# pains/trainer.md row 45
def test_another_architecture_is_refused_with_the_names_that_differ() -> None:
    class Other(Net):
        def __init__(self) -> None:
            super().__init__()
            self.extra = torch.nn.Linear(2, 2)
            del self.net[0]

    _killed()
    with pytest.raises(renshu.errors.CheckpointError) as caught:
        fit(module=Other, resume="last")
    for name in ("extra.weight: only in the module", "net.2.weight: only in the checkpoint"):
        assert name in str(caught.value)


def test_another_number_of_optimisers_is_refused() -> None:
    _killed()
    made = _with(lambda p: [optim.SGD([q], 0.1) for q in p], Net)
    with pytest.raises(renshu.errors.CheckpointError, match="has 1 optimisers, the module makes 4"):
        fit(module=made, resume="last")


def test_another_class_of_optimiser_is_refused() -> None:
    _killed()
    with pytest.raises(renshu.errors.CheckpointError, match="is Adagrad, the checkpoint has SGD"):
        fit(module=_with(OPTIMISERS["Adagrad"], Net), resume="last")
