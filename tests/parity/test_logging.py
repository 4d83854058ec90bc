"""log() and what comes of it: the same names, steps and values as in Lightning."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compare import Build, Job, assert_same, cases, classifier, job, loader
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR
from torchmetrics import Accuracy, MeanMetric, MetricCollection


def logging_with(stage: str, how: dict[str, Any]) -> Build:
    """A case that logs in the steps of one stage with these arguments of log()."""

    def build(pl: Any) -> Job:
        class Net(classifier(pl)):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                loss = self.loss(batch)
                if stage == "train":
                    self.log("loss", loss, **how)
                return loss

            def validation_step(self, batch: Any, batch_idx: int) -> Any:
                if stage == "validation":
                    self.log("val/loss", self.loss(batch), **how)

        return job(Net, val_check_interval=3)

    return build


HOW: dict[str, dict[str, Any]] = {
    "step": {"on_step": True, "on_epoch": False},
    "epoch": {"on_step": False, "on_epoch": True},
    "both": {"on_step": True, "on_epoch": True, "prog_bar": True},
    "sum": {"on_epoch": True, "reduce_fx": "sum"},
    "max": {"on_step": False, "on_epoch": True, "reduce_fx": torch.max},
    "min": {"on_epoch": True, "reduce_fx": min.__name__},
    "weighted": {"on_epoch": True, "batch_size": 3},
    "no logger": {"on_epoch": True, "logger": False},
}


# capabilities B3 D2 E
@pytest.mark.parametrize("how", cases(HOW))
def test_logs_the_same_in_training_steps(how: dict[str, Any]) -> None:
    assert_same(logging_with("train", how))


@pytest.mark.parametrize("how", cases({n: h for n, h in HOW.items() if not h.get("on_step")}))
def test_logs_the_same_in_validation_steps(how: dict[str, Any]) -> None:
    assert_same(logging_with("validation", how))


def uneven_batches(pl: Any) -> Job:
    class Net(classifier(pl)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.loss(batch)
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

    return Job(Net(), loader(45), loader(21))


def log_dict(pl: Any) -> Job:
    class Net(classifier(pl)):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log_dict({"val/loss": self.loss(batch), "val/one": 1, "val/index": batch_idx})

    return job(Net)


def in_every_hook(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_train_epoch_start(self) -> None:
            self.log("train_epoch_start", float(self.current_epoch))

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.log("train_batch_start", float(batch_idx))

        def on_after_backward(self) -> None:
            self.log("after_backward", self.net[0].bias.grad.sum(), on_epoch=True)

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.log("train_batch_end", self.net[0].bias.sum())

        def on_train_epoch_end(self) -> None:
            self.log("train_epoch_end", float(self.global_step))

        def on_validation_start(self) -> None:
            self.log("validation_start", 2.0)

        def on_validation_epoch_start(self) -> None:
            self.log("validation_epoch_start", float(self.global_step))

        def on_validation_batch_end(
            self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
        ) -> None:
            self.log("validation_batch_end", float(batch_idx))

        def on_validation_epoch_end(self) -> None:
            self.log("validation_epoch_end", self.net[0].bias.sum())

    return job(Net)


def in_on_train_start(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_train_start(self) -> None:
            self.log("train_start", 1.0)

    return job(Net)


def outputs_of_the_step(pl: Any) -> Job:
    class Reading(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            module.log("seen", outputs["loss"], on_step=True, on_epoch=True)

    return job(classifier(pl), callbacks=[Reading()])


def by_a_callback(pl: Any) -> Job:
    class Logging(pl.Callback):
        def on_train_batch_end(
            self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            module.log("seen", module.net[0].bias.sum(), on_step=True, on_epoch=True)

        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            module.log("norm", module.net[0].weight.norm())

    return job(classifier(pl), callbacks=[Logging()])


def metric_objects(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.accuracy = Accuracy("multiclass", num_classes=10, average="micro")
            self.mean = MeanMetric()
            more = {f"top{k}": Accuracy("multiclass", num_classes=10, top_k=k) for k in (1, 3)}
            self.validation = MetricCollection(more, prefix="val_")

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.accuracy(self(batch[0]), batch[1])
            self.log("accuracy", self.accuracy, on_step=True, on_epoch=True)
            self.mean.update(loss.detach(), weight=len(batch[0]))
            self.log("mean", self.mean, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            super().validation_step(batch, batch_idx)
            self.validation.update(self(batch[0]), batch[1])
            self.log_dict(self.validation)

    return Job(Net(), loader(45), loader(21))


def metric_computed_by_hand(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.accuracy = Accuracy("multiclass", num_classes=10)

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.accuracy.update(self(batch[0]), batch[1])

        def on_validation_epoch_end(self) -> None:
            self.log("accuracy", self.accuracy.compute())
            self.accuracy.reset()

    return job(Net)


def several_validation_loaders(pl: Any) -> Job:
    class Net(classifier(pl)):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            loss = self.loss(batch)
            self.log("val_loss", loss)
            self.log(f"own_{dataloader_idx}", loss, add_dataloader_idx=False)

    return Job(Net(), loader(), [loader(24), loader(16), loader(13)])


def several_validation_loaders_limited(pl: Any) -> Job:
    class Net(classifier(pl)):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.log("val_loss", self.loss(batch))

    options = {"limit_val_batches": 0.5, "val_check_interval": 3}
    return Job(Net(), loader(), [loader(48), loader(32)], options)


def plateau_on_one_of_several_loaders(pl: Any) -> Job:
    class Net(classifier(pl)):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.log("val_loss", self.loss(batch))

        def configure_optimizers(self) -> Any:
            optimizer = Adam(self.parameters(), lr=0.1)
            schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, patience=0, threshold=0.9
            )
            how = {"scheduler": schedule, "monitor": "val_loss/dataloader_idx_1"}
            return {"optimizer": optimizer, "lr_scheduler": how}

    return Job(Net(), loader(), [loader(24), loader(16)], {"max_epochs": 3})


def learning_rates(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            first, _, last = self.net
            groups = [{"params": part.parameters()} for part in (first, last)]
            optimizer = Adam(groups, lr=0.01)
            return [optimizer], [ExponentialLR(optimizer, 0.5)]

    monitor = pl.callbacks.LearningRateMonitor("step", log_momentum=True)
    return job(Net, callbacks=[monitor])


def learning_rates_by_epoch(pl: Any) -> Job:
    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            optimizer = Adam(self.parameters(), lr=0.01)
            how = {"scheduler": ExponentialLR(optimizer, 0.5), "name": "rate"}
            return {"optimizer": optimizer, "lr_scheduler": how}

    monitor = pl.callbacks.LearningRateMonitor("epoch")
    return job(Net, callbacks=[monitor])


def rates_as_metrics(pl: Any) -> Job:
    return job(classifier(pl), callbacks=[pl.callbacks.LearningRateMonitor()])


def manual_with_epoch_values(pl: Any) -> Job:
    class Net(classifier(pl)):
        automatic_optimization = False

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            optimizer, loss = self.optimizers(), self.loss(batch)
            self.log("loss", loss, on_step=True, on_epoch=True)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    return job(Net, log_every_n_steps=2)


def values_of_layers(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            norms = {
                f"norm/{name}": layer.weight.grad.norm()
                for name, layer in self.net.named_children()
                if isinstance(layer, nn.Linear)
            }
            self.log_dict(norms, on_step=True, on_epoch=True)

    return job(Net)


CASES = [
    uneven_batches,
    log_dict,
    in_every_hook,
    in_on_train_start,
    outputs_of_the_step,
    by_a_callback,
    metric_objects,
    metric_computed_by_hand,
    several_validation_loaders,
    several_validation_loaders_limited,
    plateau_on_one_of_several_loaders,
    learning_rates,
    learning_rates_by_epoch,
    rates_as_metrics,
    manual_with_epoch_values,
    values_of_layers,
]


@pytest.mark.parametrize("build", cases(CASES))
def test_logs_the_same_in(build: Build) -> None:
    assert_same(build)
