"""Optimisers, schedulers, accumulation, clipping, manual optimisation: trained as by Lightning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compare import Build, Job, assert_same, cases, classifier, job, loader
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Adam, AdamW
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

# --- automatic optimisation


def sgd_with_momentum(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            return SGD(self.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)

    return job(Net)


def adamw_in_a_list(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            return [AdamW(self.parameters(), lr=0.01)]

    return job(Net)


def parameter_groups(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            first, _, last = self.net
            slow = {"params": first.parameters(), "lr": 0.001}
            return Adam([slow, {"params": last.parameters(), "weight_decay": 0.1}], lr=0.01)

    return job(Net)


def frozen_parameters(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.net[0].requires_grad_(False)

        def configure_optimizers(self) -> Any:
            return SGD([p for p in self.parameters() if p.requires_grad], lr=0.5)

    return job(Net)


def unfrozen_in_the_second_epoch(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_train_epoch_start(self) -> None:
            self.net[0].requires_grad_(self.current_epoch > 0)

    return job(Net)


def tied_weights(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.back = nn.Linear(16, 64, bias=False)
            self.back.weight = nn.Parameter(self.net[0].weight.t().detach().clone())
            self.again = self.back

        def loss(self, batch: Any) -> Any:
            code = self.net[0](batch[0])
            return super().loss(batch) + mse_loss(self.again(code), batch[0])

    return job(Net)


def gradient_hooks(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_before_backward(self, loss: Any) -> None:
            self.log("seen_loss", loss)

        def on_after_backward(self) -> None:
            self.net[0].bias.grad.mul_(0.5)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            norm = self.net[2].weight.grad.norm()
            self.log("norm", norm)
            self.net[2].weight.grad.div_(norm)

        def on_before_zero_grad(self, optimizer: Any) -> None:
            for group in optimizer.param_groups:
                group["lr"] *= 0.9

    return job(Net)


def lbfgs(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)

    return job(Net)


def own_optimizer_step(pl: Any) -> Job:
    class Net(classifier(pl)):
        def optimizer_step(
            self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
        ) -> None:
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * min(1.0, (self.trainer.global_step + 1) / 5)
            optimizer.step(closure=optimizer_closure)

    return job(Net)


def own_optimizer_step_that_skips(pl: Any) -> Job:
    class Net(classifier(pl)):
        def optimizer_step(
            self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None
        ) -> None:
            if batch_idx % 2 == 0:
                optimizer.step(closure=optimizer_closure)
            else:
                optimizer_closure()

    return job(Net, differs=("logged", "steps"))  # Lightning counts calls


def own_zero_grad_and_backward(pl: Any) -> Job:
    class Net(classifier(pl)):
        def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
            optimizer.zero_grad(set_to_none=False)

        def backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
            (2 * loss).backward(*args, **kwargs)

    return job(Net)


def loss_in_a_dict(pl: Any) -> Job:
    class Net(classifier(pl)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return {"loss": super().training_step(batch, batch_idx), "more": batch[1]}

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.log("again", outputs["loss"] + outputs["more"].sum())

    return job(Net)


def some_losses_are_none(pl: Any) -> Job:
    class Net(classifier(pl)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx in (1, 5) else super().training_step(batch, batch_idx)

    return job(Net, differs=("logged", "steps", "calls"))  # Lightning steps all the same


# --- accumulation and clipping


def accumulated(pl: Any) -> Job:
    return job(classifier(pl), accumulate_grad_batches=3)


def accumulated_and_clipped(pl: Any) -> Job:
    return job(classifier(pl), accumulate_grad_batches=2, gradient_clip_val=0.3)


def clipped_by_norm(pl: Any) -> Job:
    return job(classifier(pl), gradient_clip_val=0.2)


def clipped_by_value(pl: Any) -> Job:
    return job(classifier(pl), gradient_clip_val=0.01, gradient_clip_algorithm="value")


def own_clipping(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_gradient_clipping(
            self,
            optimizer: Any,
            gradient_clip_val: Any = None,
            gradient_clip_algorithm: Any = None,
        ) -> None:
            assert gradient_clip_val is None
            limit = 0.1 if self.current_epoch else 0.2
            self.clip_gradients(optimizer, limit, gradient_clip_algorithm="norm")

    return job(Net)


# --- schedulers


def scheduled(make: Any, **options: Any) -> Build:
    """A case whose configure_optimizers is `make(Adam)`; its rates are logged too."""

    def build(pl: Any) -> Job:
        class Net(classifier(pl)):
            def configure_optimizers(self) -> Any:
                return make(Adam(self.parameters(), lr=0.02))

            def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
                self.log("rate", self.trainer.optimizers[0].param_groups[0]["lr"])

        return job(Net, **{"max_epochs": 3, **options})

    return build


def each_epoch(optimizer: Any) -> Any:
    return [optimizer], [StepLR(optimizer, 1, gamma=0.3)]


def each_step(optimizer: Any) -> Any:
    schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=18)
    return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def every_second_step(optimizer: Any) -> Any:
    schedule = ExponentialLR(optimizer, 0.7)
    how = {"scheduler": schedule, "interval": "step", "frequency": 2, "name": "decay"}
    return {"optimizer": optimizer, "lr_scheduler": how}


def every_second_epoch(optimizer: Any) -> Any:
    how = {"scheduler": ExponentialLR(optimizer, 0.1), "interval": "epoch", "frequency": 2}
    return {"optimizer": optimizer, "lr_scheduler": how}


def warm_up_then_cosine(optimizer: Any) -> Any:
    parts = [LinearLR(optimizer, 0.1, total_iters=4), CosineAnnealingLR(optimizer, 14)]
    schedule = SequentialLR(optimizer, parts, milestones=[4])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def two_schedulers(optimizer: Any) -> Any:
    steps = {"scheduler": MultiStepLR(optimizer, [3, 9], gamma=0.5), "interval": "step"}
    return [optimizer], [steps, ConstantLR(optimizer, 0.5, total_iters=1)]


def plateau(optimizer: Any) -> Any:
    schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=0.5)
    return {"optimizer": optimizer, "lr_scheduler": schedule, "monitor": "val_loss"}


def plateau_of_training(optimizer: Any) -> Any:
    schedule = ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.5)
    how = {"scheduler": schedule, "interval": "step", "frequency": 3, "monitor": "train_loss"}
    return {"optimizer": optimizer, "lr_scheduler": how}


def plateau_not_strict(optimizer: Any) -> Any:
    schedule = ReduceLROnPlateau(optimizer, patience=0)
    how = {"scheduler": schedule, "monitor": "never_logged", "strict": False}
    return {"optimizer": optimizer, "lr_scheduler": how}


def own_scheduler_step(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            return each_epoch(Adam(self.parameters(), lr=0.02))

        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            if self.current_epoch:
                scheduler.step()

    return job(Net, max_epochs=3)


# --- manual optimisation


def manual(pl: Any) -> Job:
    class Net(classifier(pl)):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss)
            self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")
            optimizer.step()

    return job(Net)


def manual_accumulation_and_schedule(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.manual_backward(loss / 2)
            if batch_idx % 2:
                self.optimizers().step()
                self.optimizers().zero_grad()
                self.lr_schedulers().step()
            return loss

        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.2)
            return [optimizer], [ExponentialLR(optimizer, 0.8)]

    return job(Net, differs=("logged",))  # under the number of batches, not of steps


def manual_closure(pl: Any) -> Job:
    class Net(classifier(pl)):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer = self.optimizers()

            def closure() -> Any:
                loss = self.loss(batch)
                optimizer.zero_grad()
                self.manual_backward(loss)
                return loss

            self.log("before", self.loss(batch))
            optimizer.step(closure=closure)

    return job(Net)


def adversaries(pl: Any) -> Any:
    """Two players on two optimisers, as in a GAN without noise."""

    class Players(classifier(pl)):
        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.maker, self.judge = nn.Linear(64, 64), nn.Linear(64, 1)

        def judged(self, images: Any, wanted: float) -> Any:
            return mse_loss(self.judge(images), torch.full((len(images), 1), wanted))

        def configure_optimizers(self) -> Any:
            return SGD(self.maker.parameters(), lr=0.1), Adam(self.judge.parameters(), lr=0.01)

    return Players


def manual_with_two_optimizers(pl: Any) -> Job:
    class Net(adversaries(pl)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            images = batch[0]
            losses = (
                lambda: self.judged(self.maker(images), 1.0),
                lambda: self.judged(self.maker(images), 0.0) + self.judged(images, 1.0),
            )
            for number, (optimizer, loss) in enumerate(zip(self.optimizers(), losses, strict=True)):
                self.toggle_optimizer(optimizer)
                value = loss()
                self.log(f"loss_{number}", value)
                optimizer.zero_grad()
                self.manual_backward(value)
                optimizer.step()
                self.untoggle_optimizer(optimizer)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("val_loss", self.judged(batch[0], 1.0))

    return job(Net, differs=("steps",))  # Lightning counts those of both optimisers


CASES = [
    sgd_with_momentum,
    adamw_in_a_list,
    parameter_groups,
    frozen_parameters,
    unfrozen_in_the_second_epoch,
    tied_weights,
    gradient_hooks,
    lbfgs,
    own_optimizer_step,
    own_optimizer_step_that_skips,
    own_zero_grad_and_backward,
    loss_in_a_dict,
    some_losses_are_none,
    accumulated,
    accumulated_and_clipped,
    clipped_by_norm,
    clipped_by_value,
    own_clipping,
    own_scheduler_step,
    manual,
    manual_accumulation_and_schedule,
    manual_closure,
    manual_with_two_optimizers,
]
SCHEDULES = [
    each_epoch,
    each_step,
    every_second_step,
    every_second_epoch,
    warm_up_then_cosine,
    two_schedulers,
    plateau,
    plateau_of_training,
    plateau_not_strict,
]


# capabilities B2 B4 C5
@pytest.mark.parametrize("build", cases(CASES))
def test_trains_the_same(build: Build) -> None:
    assert_same(build)


@pytest.mark.parametrize("make", cases(SCHEDULES))
def test_schedules_the_same(make: Any) -> None:
    assert_same(scheduled(make))


@pytest.mark.parametrize("make", cases([each_step, two_schedulers]))
def test_schedules_the_same_with_accumulation(make: Any) -> None:
    assert_same(scheduled(make, accumulate_grad_batches=2))


def test_an_epochs_scheduler_steps_once_an_epoch_however_often_validation_runs() -> None:
    assert_same(scheduled(each_epoch, val_check_interval=2))


def test_uneven_batches_without_accumulation_are_the_same() -> None:
    def build(pl: Any) -> Job:
        return Job(classifier(pl)(), loader(45), loader(21))

    assert_same(build)
