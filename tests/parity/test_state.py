"""Checkpoints, hyper-parameters, averages, and evaluations: the same as in Lightning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from compare import Build, Job, assert_same, cases, classifier, loader, trainer
from torch import nn
from torch.optim import Adam
from torch.optim.lr_scheduler import StepLR

PATTERN = "{epoch}-{step}-{val_loss:.3f}"


def name(path: Any) -> str:
    """A checkpoint's name: ours are folders, Lightning's files."""
    return Path(path).name.removesuffix(".ckpt")


def saving(pl: Any, **how: Any) -> Job:
    """A fit of three epochs with one ModelCheckpoint; the best ones' names and scores."""
    options = {key: how.pop(key) for key in ("val_check_interval", "max_epochs") if key in how}
    how = {"filename": PATTERN, "monitor": "val_loss", "save_last": False, **how}
    saver = pl.callbacks.ModelCheckpoint(dirpath="saved", **how)

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return {
            "all": {name(path): float(score) for path, score in saver.best_k_models.items()},
            "best": name(saver.best_model_path),
            "score": saver.best_model_score and float(saver.best_model_score),
        }

    options = {"callbacks": [saver], "enable_checkpointing": True, "max_epochs": 3, **options}
    return Job(classifier(pl)(), loader(), loader(24), options, run, SAVES)


SAVES = ("calls",)
"""on_save_checkpoint comes at other moments: test_differences.py."""

SAVING: dict[str, dict[str, Any]] = {
    "the best": {},
    "the two best": {"save_top_k": 2},
    "the two worst": {"save_top_k": 2, "mode": "max"},
    "all": {"save_top_k": -1},
    "every second epoch": {"save_top_k": -1, "every_n_epochs": 2},
    "every 4 steps": {
        "save_top_k": -1,
        "every_n_train_steps": 4,
        "monitor": "train_loss",
        "filename": "{epoch}-{step}-{train_loss:.2f}",
    },
    "after each validation": {"save_top_k": 2, "val_check_interval": 2},
    "names without names": {"save_top_k": 2, "auto_insert_metric_name": False},
    "a name twice": {"save_top_k": -1, "filename": "model"},
}


# capabilities B1 C1 E
@pytest.mark.parametrize("how", cases(SAVING))
def test_saves_the_same_checkpoints(how: dict[str, Any]) -> None:
    assert_same(lambda pl: saving(pl, **how))


# --- hyper-parameters, and training on from a checkpoint


def configurable(pl: Any) -> Any:
    class Net(pl.LightningModule):
        def __init__(self, width: int, lr: float = 0.1, *, names: Any = ("a", "b"), extra: Any = 3):
            super().__init__()
            self.save_hyperparameters(ignore=["extra"])
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))
            self.seen = list[Any]()

        def forward(self, images: Any) -> Any:
            return self.net(images)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            optimizer = Adam(self.parameters(), lr=self.hparams.lr)
            return [optimizer], [StepLR(optimizer, 1, gamma=0.5)]

        def on_save_checkpoint(self, checkpoint: Any) -> None:
            checkpoint["own"] = [self.global_step, "text"]

        def on_load_checkpoint(self, checkpoint: Any) -> None:
            self.seen = checkpoint["own"]

    return Net


def hyperparameters(pl: Any) -> Job:
    Net = configurable(pl)

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        trainer.save_checkpoint("saved")
        loaded = Net.load_from_checkpoint("saved", lr=0.5)
        again = Net.load_from_checkpoint("saved")
        return {
            "given": dict(job.module.hparams),
            "loaded": dict(loaded.hparams),
            "again": dict(again.hparams),
            "seen": loaded.seen,
            "weights": dict(loaded.state_dict()),
        }

    return Job(Net(12, lr=0.02), loader(), loader(24), {"max_epochs": 1}, run)


def continued(pl: Any) -> Job:
    """Two epochs, and the third by a new trainer and a new module."""
    Net = configurable(pl)

    def run(first: Any, job: Job) -> Any:
        first.fit(job.module, job.train, job.val)
        first.save_checkpoint("saved")
        module = Net(12, lr=0.02)
        second = trainer(pl, max_epochs=3)
        second.fit(module, loader(), loader(24), ckpt_path="saved")
        return second.global_step, module.seen, dict(module.state_dict())

    return Job(Net(12, lr=0.02), loader(), loader(24), run=run)


def weights_only(pl: Any) -> Job:
    Net = configurable(pl)

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train)
        trainer.save_checkpoint("saved", weights_only=True)
        return dict(Net.load_from_checkpoint("saved").state_dict())

    return Job(Net(12, lr=0.02), loader(), loader(24), {"max_epochs": 1}, run, SAVES)


def first_hyperparameters(pl: Any) -> Job:
    Net = configurable(pl)

    def run(trainer: Any, job: Job) -> Any:
        job.module.hparams.lr = 0.3
        return dict(job.module.hparams), dict(job.module.hparams_initial)

    return Job(Net(12, lr=0.02), run=run)


# --- averages


def averaging(pl: Any, **how: Any) -> Job:
    average = pl.callbacks.EMAWeightAveraging(decay=0.7, **how)

    class Net(classifier(pl)):
        def __init__(self):
            super().__init__()
            self.net.insert(1, norm := nn.BatchNorm1d(16))
            norm.num_batches_tracked = None  # Lightning averages counts too: test_differences.py

    return Job(Net(), loader(), loader(24), {"callbacks": [average], "accumulate_grad_batches": 2})


AVERAGING: dict[str, dict[str, Any]] = {
    "each step": {},
    "every second step": {"update_every_n_steps": 2},
    "from a step on": {"update_starting_at_step": 2},
    "without buffers": {"use_buffers": False},
}


@pytest.mark.parametrize("how", cases(AVERAGING))
def test_averages_the_same(how: dict[str, Any]) -> None:
    assert_same(lambda pl: averaging(pl, **how))


# --- evaluating


def alone_validated(pl: Any) -> Job:
    return Job(
        classifier(pl)(),
        options={"logger": False},
        run=lambda t, job: t.validate(job.module, loader(21), verbose=False),
    )


def alone_tested(pl: Any) -> Job:
    class Net(classifier(pl)):
        def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            self.log("test_loss", self.loss(batch))
            self.log("sum", self.loss(batch), reduce_fx="sum", add_dataloader_idx=True)

    def run(trainer: Any, job: Job) -> Any:
        return trainer.test(job.module, [loader(21), loader(16)], verbose=False)

    return Job(Net(), run=run, options={"limit_test_batches": 2, "logger": False})


def predicted(pl: Any) -> Job:
    class Net(classifier(pl)):
        def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Any:
            return {"logits": self(batch[0]), "at": [batch_idx, dataloader_idx]}

    def run(trainer: Any, job: Job) -> Any:
        return trainer.predict(job.module, loader(21)), trainer.predict(
            job.module, [loader(21), loader(16)]
        )

    return Job(Net(), run=run, options={"limit_predict_batches": 2})


def evaluated_after_the_fit(pl: Any) -> Job:
    """Validation twice, test and prediction by the same trainer, all with what was trained."""

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return {
            "validate": trainer.validate(job.module, job.val, verbose=False),
            "again": trainer.validate(job.module, loader(16), verbose=False),
            "test": trainer.test(job.module, loader(32), verbose=False),
            "predict": trainer.predict(job.module, loader(16)),
        }

    return Job(classifier(pl)(), loader(), loader(24), {"logger": False}, run)


def best_tested(pl: Any) -> Job:
    saver = pl.callbacks.ModelCheckpoint(dirpath="saved", monitor="val_loss", mode="max")

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return trainer.test(job.module, loader(32), ckpt_path="best", verbose=False)

    options = {"callbacks": [saver], "enable_checkpointing": True, "logger": False}
    return Job(classifier(pl)(), loader(), loader(24), options, run, SAVES)


def without_a_model(pl: Any) -> Job:
    saver = pl.callbacks.ModelCheckpoint(dirpath="saved", monitor="val_loss", mode="max")

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return trainer.test(dataloaders=loader(32), verbose=False)

    options = {"callbacks": [saver], "enable_checkpointing": True, "logger": False}
    return Job(classifier(pl)(), loader(), loader(24), options, run, SAVES)


def data_module_for_every_stage(pl: Any) -> Job:
    stages = list[str]()

    class Data(pl.LightningDataModule):
        def prepare_data(self) -> None:
            stages.append("prepare")

        def setup(self, stage: str) -> None:
            stages.append(stage)

        def teardown(self, stage: str) -> None:
            stages.append("end of " + stage)

        def train_dataloader(self) -> Any:
            return loader()

        def val_dataloader(self) -> Any:
            return loader(24)

        def test_dataloader(self) -> Any:
            return loader(16)

        def predict_dataloader(self) -> Any:
            return loader(13)

    def run(trainer: Any, job: Job) -> Any:
        data = Data()
        trainer.fit(job.module, data)
        found = [
            trainer.validate(job.module, datamodule=data, verbose=False),
            trainer.test(job.module, datamodule=data, verbose=False),
            trainer.predict(job.module, datamodule=data),
        ]
        return found, stages

    return Job(classifier(pl)(), options={"logger": False}, run=run)


def what_the_trainer_knows(pl: Any) -> Job:
    seen = list[Any]()

    class Net(classifier(pl)):
        def note(self) -> None:
            t = self.trainer
            if t.sanity_checking:  # Lightning's loader is not read yet
                return
            stage = t.training, t.validating, t.testing, t.predicting
            counts = t.num_training_batches, t.num_val_batches, t.estimated_stepping_batches
            seen.append([t.current_epoch, t.global_step, t.max_epochs, stage, counts])

        def on_train_start(self) -> None:
            self.note()

        def on_train_epoch_start(self) -> None:
            self.note()

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.note()

        def on_train_epoch_end(self) -> None:
            self.note()

        def on_validation_epoch_end(self) -> None:
            self.note()

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return seen

    options = {"accumulate_grad_batches": 2, "limit_train_batches": 4}
    return Job(Net(), loader(), loader(24), options, run)


def epochs_after_the_fit(pl: Any) -> Job:
    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return trainer.current_epoch

    return Job(classifier(pl)(), loader(), run=run)


def stage_of_the_sanity_check(pl: Any) -> Job:
    class Net(classifier(pl)):
        def on_validation_epoch_end(self) -> None:
            now = self.trainer.validating, self.trainer.sanity_checking
            self.stages = [*getattr(self, "stages", []), now]

    def run(trainer: Any, job: Job) -> Any:
        trainer.fit(job.module, job.train, job.val)
        return job.module.stages

    return Job(Net(), loader(), loader(24), run=run)


CASES = [
    hyperparameters,
    first_hyperparameters,
    continued,
    weights_only,
    alone_validated,
    alone_tested,
    predicted,
    evaluated_after_the_fit,
    best_tested,
    without_a_model,
    data_module_for_every_stage,
    what_the_trainer_knows,
    epochs_after_the_fit,
    stage_of_the_sanity_check,
]


@pytest.mark.parametrize("build", cases(CASES))
def test_does_the_same(build: Build) -> None:
    assert_same(build)
