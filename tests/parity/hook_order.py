"""Runs whose hook calls are recorded in hook_order.json.

`PYTHONPATH=tests python tests/parity/hook_order.py` records Lightning's anew.

Each run has a callback, a module and (where it says so) a data module that override everything.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from compare import (
    CALLBACK_HOOKS,
    MODULE_HOOKS,
    Job,
    classifier,
    lightning,
    listening_module,
    loader,
    train,
    trainer,
)
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

FILE = Path(__file__).parent / "hook_order.json"

STEPS = ["training_step", "validation_step", "test_step", "predict_step"]
SETTING_UP = ["prepare_data", "configure_callbacks", "configure_model", "configure_optimizers"]
STAGES = ["backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping"]
TRANSFERS = ["on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"]
MODES = ["on_validation_model_eval", "on_test_model_eval", "on_predict_model_eval"]


def calls(pl: Any, name: str) -> list[str]:
    """The calls of one run under one package, in order."""
    noted = list[str]()

    def build(pl: Any) -> Job:
        job = RUNS[name](pl, noted)
        listener = type("Listener", (pl.Callback,), {hook: noting(hook) for hook in CALLBACK_HOOKS})
        job.options = {"max_epochs": 1, "logger": False, **job.options, "callbacks": [listener()]}
        return job

    def noting(hook: str) -> Any:
        return lambda *_, **__: noted.append(f"callback.{hook}")

    train(pl, build, listen=False)
    return noted


def net(pl: Any, noted: list[str], *more: str, **attributes: Any) -> Any:
    """A scheduled module that notes its on_ hooks, steps and what sets it up, and `more`."""

    class Net(classifier(pl)):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1)
            return [optimizer], [StepLR(optimizer, 1)]

    module = type("Net", (Net,), attributes)()
    listening_module(module, noted, [*MODULE_HOOKS, *STEPS, *SETTING_UP, *more])
    return module


def two() -> Any:
    return loader(16)


def one() -> Any:
    return loader(8)


def fit(pl: Any, noted: list[str]) -> Job:
    return Job(net(pl, noted), two(), one())


def own_stages(pl: Any, noted: list[str]) -> Job:
    module = net(pl, noted, *STAGES, *TRANSFERS, "on_validation_model_eval")
    return Job(module, two(), one(), {"gradient_clip_val": 1.0})


def accumulation(pl: Any, noted: list[str]) -> Job:
    return Job(net(pl, noted), loader(24), options={"accumulate_grad_batches": 2})


def accumulation_with_own_stages(pl: Any, noted: list[str]) -> Job:
    options = {"accumulate_grad_batches": 2}
    return Job(net(pl, noted, *STAGES), loader(32), options=options)


def validation_inside_the_epoch(pl: Any, noted: list[str]) -> Job:
    return Job(net(pl, noted), loader(32), one(), {"val_check_interval": 2})


def two_validation_loaders(pl: Any, noted: list[str]) -> Job:
    class Net(classifier(pl)):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int) -> Any: ...

    module = Net()
    listening_module(module, noted, [*MODULE_HOOKS, *STEPS])
    return Job(module, one(), [two(), one()])


def manual(pl: Any, noted: list[str]) -> Job:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()

    parts = {"automatic_optimization": False, "training_step": training_step}
    return Job(net(pl, noted, "backward", **parts), two(), one())


def data_module(pl: Any, noted: list[str]) -> Job:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> Any:
            return two()

        def val_dataloader(self) -> Any:
            return one()

    def run(trainer: Any, job: Job) -> None:
        trainer.fit(job.module, datamodule=data)

    data = Data()
    kind = type(data)
    for name in ["prepare_data", "setup", "teardown", *TRANSFERS]:
        setattr(kind, name, _noting(getattr(kind, name), f"data.{name}", noted))
    return Job(net(pl, noted), run=run)


def _noting(inherited: Any, name: str, noted: list[str]) -> Any:
    def hook(self: Any, *args: Any, **kwargs: Any) -> Any:
        noted.append(name)
        return inherited(self, *args, **kwargs)

    return hook


def exception(pl: Any, noted: list[str]) -> Job:
    def training_step(self: Any, batch: Any, batch_idx: int) -> None:
        raise ArithmeticError

    def run(trainer: Any, job: Job) -> None:
        try:
            trainer.fit(job.module, job.train, job.val)
        except ArithmeticError:
            noted.append("raised")

    return Job(net(pl, noted, training_step=training_step), two(), one(), run=run)


def resumed(pl: Any, noted: list[str]) -> Job:
    def run(second: Any, job: Job) -> None:
        first = trainer(pl, max_epochs=1)
        first.fit(classifier(pl)(), two(), one())
        first.save_checkpoint("saved")
        second.fit(job.module, job.train, job.val, ckpt_path="saved")

    class Net(classifier(pl)):
        pass

    module = Net()
    listening_module(module, noted, [*MODULE_HOOKS, "configure_optimizers"])
    options = {"max_epochs": 2, "num_sanity_val_steps": 0}
    return Job(module, two(), one(), options, run)


def evaluation(stage: str) -> Any:
    def build(pl: Any, noted: list[str]) -> Job:
        quiet = {} if stage == "predict" else {"verbose": False}

        def run(trainer: Any, job: Job) -> None:
            getattr(trainer, stage)(job.module, two(), **quiet)

        return Job(net(pl, noted, *MODES, *TRANSFERS), run=run)

    return build


RUNS = {
    "fit": fit,
    "own stages": own_stages,
    "accumulation": accumulation,
    "accumulation with own stages": accumulation_with_own_stages,
    "validation inside the epoch": validation_inside_the_epoch,
    "two validation loaders": two_validation_loaders,
    "manual": manual,
    "data module": data_module,
    "exception": exception,
    "resumed": resumed,
    "validate": evaluation("validate"),
    "test": evaluation("test"),
    "predict": evaluation("predict"),
}


if __name__ == "__main__":
    recorded = {"version": lightning.__version__} | {name: calls(lightning, name) for name in RUNS}
    FILE.write_text(json.dumps(recorded, indent=1) + "\n")
