"""When batches, validations and stops come, and what data look like: the same as in Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from compare import Build, Job, assert_same, cases, classifier, digits, job, loader
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler

# --- when validation runs, and how much of what


INTERVALS: dict[str, dict[str, Any]] = {
    "validation every 2 batches": {"val_check_interval": 2},
    "validation every 4 of 6 batches": {"val_check_interval": 4},
    "validation every half epoch": {"val_check_interval": 0.5},
    "validation every third of an epoch": {"val_check_interval": 0.34},
    "validation every batch": {"val_check_interval": 1},
    "validation every 4 batches across epochs": {
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
    },
    "validation every 8 batches across epochs": {
        "val_check_interval": 8,
        "check_val_every_n_epoch": None,
    },
    "validation every second epoch": {"check_val_every_n_epoch": 2, "max_epochs": 4},
    "validation twice in every second epoch": {
        "val_check_interval": 3,
        "check_val_every_n_epoch": 2,
        "max_epochs": 4,
    },
    "validation with accumulation": {"val_check_interval": 3, "accumulate_grad_batches": 2},
    "4 training batches": {"limit_train_batches": 4},
    "half of the training batches": {"limit_train_batches": 0.5},
    "one validation batch": {"limit_val_batches": 1},
    "two thirds of the validation batches": {"limit_val_batches": 0.7},
    "no validation": {"limit_val_batches": 0},
    "overfit 2 batches": {"overfit_batches": 2},
    "overfit half": {"overfit_batches": 0.5},
    "overfit 2 batches, accumulated": {"overfit_batches": 2, "accumulate_grad_batches": 2},
    "fast_dev_run": {"fast_dev_run": True},
    "fast_dev_run of 3": {"fast_dev_run": 3},
    "no sanity check": {"num_sanity_val_steps": 0},
    "sanity check of 1 batch": {"num_sanity_val_steps": 1},
    "sanity check of all": {"num_sanity_val_steps": -1},
    "max_steps inside the first epoch": {"max_steps": 4, "max_epochs": -1},
    "max_steps inside the second epoch": {"max_steps": 8, "max_epochs": -1},
    "max_steps at an epoch's end": {"max_steps": 6, "max_epochs": -1},
    "max_steps with accumulation": {
        "max_steps": 4,
        "max_epochs": -1,
        "accumulate_grad_batches": 2,
    },
    "no epoch": {"max_epochs": 0},
    "values logged every 4 steps": {"log_every_n_steps": 4},
    "values logged every 5 steps, validation every 3": {
        "log_every_n_steps": 5,
        "val_check_interval": 3,
    },
    "64-true": {"precision": "64-true"},
    "bf16-mixed": {"precision": "bf16-mixed"},
    "without inference mode": {"inference_mode": False},
    "anomaly detection": {"detect_anomaly": True},
    "deterministic": {"deterministic": True},
}


# capabilities C1 C2 C6 D1 D3
@pytest.mark.parametrize("options", cases(INTERVALS))
def test_runs_the_same_with(options: dict[str, Any]) -> None:
    assert_same(lambda pl: job(classifier(pl), **options))


# --- stops


def early_stopping(pl: Any) -> Job:
    stop = pl.callbacks.EarlyStopping("val_loss", patience=1, min_delta=0.2)
    return job(classifier(pl), callbacks=[stop], max_epochs=6)


def early_stopping_on_training(pl: Any) -> Job:
    stop = pl.callbacks.EarlyStopping("mean_loss", patience=1, min_delta=0.2, mode="max")

    class Net(classifier(pl)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("mean_loss", loss, on_step=False, on_epoch=True)
            return loss

    return job(Net, callbacks=[stop], max_epochs=6)


def early_stopping_inside_an_epoch(pl: Any) -> Job:
    stop = pl.callbacks.EarlyStopping("val_loss", patience=2, min_delta=0.2)
    return job(classifier(pl), callbacks=[stop], max_epochs=6, val_check_interval=2)


def early_stopping_waits_for_min_epochs(pl: Any) -> Job:
    stop = pl.callbacks.EarlyStopping("val_loss", patience=1, min_delta=1.0)
    return job(classifier(pl), callbacks=[stop], max_epochs=6, min_epochs=4)


def early_stopping_at_a_threshold(pl: Any) -> Job:
    stop = pl.callbacks.EarlyStopping("val_loss", stopping_threshold=2.2)
    return job(classifier(pl), callbacks=[stop], max_epochs=6)


def stopped_by_a_hook(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            if self.global_step == 4:
                self.trainer.should_stop = True

    return job(Net)


def stopped_by_a_hook_before_min_steps(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.trainer.should_stop = self.global_step >= 2

    return job(Net, min_steps=8)


def stopped_by_validation(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_validation_epoch_end(self) -> None:
            self.trainer.should_stop = not self.trainer.sanity_checking

    return job(Net, val_check_interval=2)


def an_exception(pl: Any) -> Job:
    class Net(classifier(pl)):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if self.global_step == 3:
                raise ArithmeticError("as planned")
            return super().training_step(batch, batch_idx)

    def run(trainer: Any, job: Job) -> str:
        with pytest.raises(ArithmeticError) as caught:
            trainer.fit(job.module, job.train, job.val)
        return str(caught.value)

    return Job(Net(), loader(), loader(24), run=run)


# --- data


def dict_batches(pl: Any) -> Job:
    def collate(rows: list[Any]) -> dict[str, Any]:
        images, labels = zip(*rows, strict=True)
        return {"image": torch.stack(images), "deep": {"label": torch.stack(labels)}, "id": "x"}

    class Net(classifier(pl)):
        def loss(self, batch: Any) -> Any:
            return super().loss((batch["image"], batch["deep"]["label"]))

    return Job(Net(), loader(collate_fn=collate), loader(24, collate_fn=collate))


class Rows(IterableDataset):
    """Digits one by one, without a length."""

    def __init__(self, n: int):
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        images, labels = digits()
        return iter(zip(images[: self.n], labels[: self.n], strict=True))


def iterable_data(pl: Any) -> Job:
    return Job(classifier(pl)(), DataLoader(Rows(48), 8), DataLoader(Rows(24), 8))


def iterable_data_with_validation_between(pl: Any) -> Job:
    options = {"val_check_interval": 2, "limit_train_batches": 5}
    return Job(classifier(pl)(), DataLoader(Rows(48), 8), DataLoader(Rows(24), 8), options)


def uneven_iterable_data(pl: Any) -> Job:
    return Job(classifier(pl)(), DataLoader(Rows(45), 8), DataLoader(Rows(20), 8))


class Batches:
    """A loader that is no DataLoader."""

    def __init__(self, n: int):
        self.n = n

    def __len__(self) -> int:
        return self.n // 8

    def __iter__(self) -> Iterator[Any]:
        return iter(loader(self.n))


def own_loaders(pl: Any) -> Job:
    return Job(classifier(pl)(), Batches(48), Batches(24))


def batch_sampler(pl: Any) -> Job:
    data = loader().dataset
    order = BatchSampler(SequentialSampler(data), 12, drop_last=False)
    return Job(classifier(pl)(), DataLoader(data, batch_sampler=order), loader(24))


def own_sampler(pl: Any) -> Job:
    order = list(range(47, -1, -1))
    return Job(classifier(pl)(), loader(sampler=order), loader(24))


def dropped_last_batch(pl: Any) -> Job:
    return Job(classifier(pl)(), loader(45, drop_last=True), loader(21, drop_last=True))


def one_sample_a_batch(pl: Any) -> Job:
    return Job(classifier(pl)(), loader(5, batch_size=1), loader(3, batch_size=None))


def data_module(pl: Any) -> Job:
    class Data(pl.LightningDataModule):
        def setup(self, stage: str) -> None:
            assert stage == "fit"
            self.size = 8

        def train_dataloader(self) -> Any:
            return loader(batch_size=self.size)

        def val_dataloader(self) -> Any:
            return loader(24, batch_size=self.size)

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * (1.0 if self.trainer.training else 0.5), batch[1]

    def run(trainer: Any, job: Job) -> None:
        trainer.fit(job.module, datamodule=job.train)

    return Job(classifier(pl)(), Data(), run=run)


def loaders_of_the_module(pl: Any) -> Job:
    class Net(classifier(pl)):
        def train_dataloader(self) -> Any:
            return loader()

        def val_dataloader(self) -> Any:
            return [loader(24), loader(16)]

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any:
            self.log("val_loss", self.loss(batch))

        def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] + dataloader_idx / 10, batch[1]

        def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
            return tuple(part.to(device) for part in batch)

    return Job(Net(), run=lambda trainer, job: trainer.fit(job.module))


def loaders_made_anew(pl: Any) -> Job:
    class Net(classifier(pl)):
        def train_dataloader(self) -> Any:
            return loader(24 + 8 * self.trainer.current_epoch)

        def val_dataloader(self) -> Any:
            return loader(8 + 8 * self.trainer.current_epoch)

    options = {"reload_dataloaders_every_n_epochs": 1, "max_epochs": 3}
    return Job(Net(), options=options, run=lambda trainer, job: trainer.fit(job.module))


def no_validation_at_all(pl: Any) -> Job:
    return Job(classifier(pl)(), loader())


def only_a_batch_argument(pl: Any) -> Job:
    class Net(classifier(pl)):
        def training_step(self, batch: Any) -> Any:
            return super().training_step(batch, 0)

        def validation_step(self, batch: Any) -> Any:
            super().validation_step(batch, 0)

    return job(Net)


def batch_statistics(pl: Any) -> Job:
    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.net.insert(1, torch.nn.BatchNorm1d(16))

    return job(Net, val_check_interval=2)


def callbacks_of_the_module(pl: Any) -> Job:
    class Doubling(pl.Callback):
        def on_train_batch_start(
            self, trainer: Any, module: Any, batch: Any, batch_idx: int
        ) -> None:
            batch[0].mul_(1.01)

    class Net(classifier(pl)):
        def configure_callbacks(self) -> Any:
            return [pl.callbacks.EarlyStopping("val_loss", min_delta=1.0, patience=1), Doubling()]

    return job(Net, max_epochs=4)


CASES = [
    early_stopping,
    early_stopping_on_training,
    early_stopping_inside_an_epoch,
    early_stopping_waits_for_min_epochs,
    early_stopping_at_a_threshold,
    stopped_by_a_hook,
    stopped_by_a_hook_before_min_steps,
    stopped_by_validation,
    an_exception,
    dict_batches,
    iterable_data,
    iterable_data_with_validation_between,
    uneven_iterable_data,
    own_loaders,
    batch_sampler,
    own_sampler,
    dropped_last_batch,
    one_sample_a_batch,
    data_module,
    loaders_of_the_module,
    loaders_made_anew,
    no_validation_at_all,
    only_a_batch_argument,
    batch_statistics,
    callbacks_of_the_module,
]


@pytest.mark.parametrize("build", cases(CASES))
def test_trains_the_same(build: Build) -> None:
    assert_same(build)
