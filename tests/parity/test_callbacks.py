"""Callbacks that change the training, and several training loaders: the same as in Lightning."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from compare import Build, Job, assert_same, cases, classifier, loader
from torch.optim import SGD
from torch.optim.lr_scheduler import ExponentialLR

# --- callbacks


def stochastic_weight_averaging(pl: Any) -> Job:
    average = pl.callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=2, annealing_epochs=2)
    return Job(classifier(pl)(), loader(), None, {"callbacks": [average], "max_epochs": 5})


def stochastic_weight_averaging_of_batch_norm(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.net.insert(1, torch.nn.BatchNorm1d(16))

    average = pl.callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=0.5)
    options = {"callbacks": [average], "max_epochs": 4}
    # Lightning steps, logs and calls hooks in the pass for the statistics: test_differences.py.
    differs = ("logged", "metrics", "steps", "calls")
    return Job(Net(), loader(), loader(24), options, differs=differs)


def backbone_finetuning(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = self.net[:2], self.net[2]

        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.head.parameters(), lr=0.1)
            return [optimizer], [ExponentialLR(optimizer, 0.9)]

    tuning = pl.callbacks.BackboneFinetuning(
        unfreeze_backbone_at_epoch=2, lambda_func=lambda epoch: 1.5, backbone_initial_ratio_lr=0.1
    )
    return Job(Net(), loader(), loader(24), {"callbacks": [tuning], "max_epochs": 4})


def own_finetuning(pl: Any) -> Job:
    class Tuning(pl.callbacks.BaseFinetuning):
        def freeze_before_training(self, pl_module: Any) -> None:
            self.freeze(pl_module.net[0])

        def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
            if epoch == 1:
                self.unfreeze_and_add_param_group(pl_module.net[0], optimizer, lr=0.01)

    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            return SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)

    return Job(Net(), loader(), None, {"callbacks": [Tuning()], "max_epochs": 3})


def accumulation_by_epoch(pl: Any) -> Job:
    schedule = pl.callbacks.GradientAccumulationScheduler({0: 1, 1: 3, 2: 2})
    return Job(classifier(pl)(), loader(), loader(24), {"callbacks": [schedule], "max_epochs": 3})


def weight_averaging(pl: Any) -> Job:
    class Averaging(pl.callbacks.WeightAveraging):
        def should_update(self, step_idx: Any = None, epoch_idx: Any = None) -> bool:
            return step_idx is not None and step_idx % 2 == 1

    return Job(classifier(pl)(), loader(), loader(24), {"callbacks": [Averaging()]})


def lambdas(pl: Any) -> Job:
    seen = list[str]()
    hooks = {
        name: lambda *_, name=name, **__: seen.append(name)
        for name in ("on_train_start", "on_validation_end", "on_train_batch_end", "on_fit_end")
    }

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return seen

    options = {"callbacks": [pl.callbacks.LambdaCallback(**hooks)]}
    return Job(classifier(pl)(), loader(), loader(24), options, run)


def prediction_writer(pl: Any) -> Job:
    written = list[Any]()

    class Writer(pl.callbacks.BasePredictionWriter):
        def write_on_batch_end(
            self,
            trainer: Any,
            pl_module: Any,
            prediction: Any,
            batch_indices: Any,
            batch: Any,
            batch_idx: int,
            dataloader_idx: int,
        ) -> None:
            written.append([prediction, list(batch_indices), batch_idx, dataloader_idx])

    def run(trainer: Any, job: Job) -> Any:
        trainer.predict(job.module, loader(21), return_predictions=False)
        return written

    return Job(classifier(pl)(), options={"callbacks": [Writer("batch")]}, run=run)


# --- several training loaders


def combined(mode: str) -> Build:
    def build(pl: Any) -> Job:
        Combined = importlib.import_module(f"{pl.__name__}.utilities").CombinedLoader

        class Net(classifier(pl)):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                parts = [part for part in batch.values() if part]
                loss = torch.stack([self.loss(part) for part in parts]).mean()
                self.log("loss", loss, on_epoch=True, batch_size=8)
                return loss

        loaders = {"long": loader(40), "short": loader(16)}
        return Job(Net(), Combined(loaders, mode), loader(24))

    return build


def loaders_in_a_dict(pl: Any) -> Job:
    class Net(classifier(pl)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch["long"]) + self.loss(batch["short"])

    return Job(Net(), {"long": loader(40), "short": loader(16)}, loader(24))


CASES = [
    stochastic_weight_averaging,
    stochastic_weight_averaging_of_batch_norm,
    backbone_finetuning,
    own_finetuning,
    accumulation_by_epoch,
    weight_averaging,
    lambdas,
    prediction_writer,
    loaders_in_a_dict,
]


# capabilities D2 E
@pytest.mark.parametrize("build", cases(CASES))
def test_trains_the_same(build: Build) -> None:
    assert_same(build)


@pytest.mark.parametrize("mode", ["min_size", "max_size", "max_size_cycle"])
def test_combines_loaders_the_same(mode: str) -> None:
    assert_same(combined(mode))
