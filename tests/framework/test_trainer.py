"""What the Trainer tells about itself, and the data and schedules it is given."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.functional import cross_entropy

import renshu
import small_models
from renshu.errors import ConfigError
from renshu.options import TrainerOptions
from small_models import Classifier, equal, loader, trainer, weights


def test_options_are_attributes_and_an_unknown_name_gets_a_hint() -> None:
    run = trainer(gradient_clip_val=0.5, max_steps=7)
    assert (run.gradient_clip_val, run.max_steps, run.log_every_n_steps) == (0.5, 7, 50)
    with pytest.raises(AttributeError, match="did you mean 'callback_metrics'"):
        _ = run.callbak_metrics
    assert not hasattr(run, "anything_else")


def test_before_the_first_fit_there_is_nothing_yet() -> None:
    run = trainer(max_epochs=3)
    assert (run.datamodule, run.optimizers, run.num_val_batches, run.last_loss) == (
        None,
        [],
        [],
        None,
    )
    assert (run.max_epochs, run.global_step, run.num_training_batches) == (3, 0, float("inf"))
    assert (run.callback_metrics, run.progress_bar_metrics, run.should_stop) == ({}, {}, False)


def test_during_and_after_a_fit_the_trainer_knows_its_parts() -> None:
    seen: list[Any] = []

    class Looks(renshu.Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            seen.append((trainer.training, trainer.validating, trainer.module is module))

        def on_validation_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            seen.append((trainer.training, trainer.validating, trainer.module is module))

    module, run = Classifier(), trainer(callbacks=[Looks()], num_sanity_val_steps=0)
    run.fit(module, loader(16, batch_size=8), loader(8))
    assert seen == [(True, False, True)] * 2 + [(False, True, True)]
    assert (run.num_training_batches, run.num_val_batches) == (2, [1])
    assert run.estimated_stepping_batches == 2
    assert run.lightning_module is run.model is module
    assert not run.training


def test_validate_and_test_show_their_signature_and_what_they_do() -> None:
    for method in (renshu.Trainer.validate, renshu.Trainer.test):
        names = list(inspect.signature(method).parameters)
        assert names == ["self", "model", "dataloaders", "ckpt_path", "verbose", "datamodule"]
        assert "one dict a loader" in (method.__doc__ or "")


def test_every_option_is_explained() -> None:
    explained = TrainerOptions.__doc__ or ""
    assert [
        name for name in TrainerOptions.__dataclass_fields__ if f" {name}: " not in explained
    ] == []


def test_no_epoch_trains_nothing() -> None:
    module = Classifier()
    before, run = weights(module), trainer(max_epochs=0)
    run.fit(module, loader())
    assert run.global_step == 0
    assert equal(weights(module), before)


def test_a_loader_that_is_asked_for_again_serves_the_epoch_about_to_start() -> None:
    class Grows(Classifier):
        asked = 0

        def train_dataloader(self) -> Any:
            self.asked += 1
            return loader(8 * self.asked, batch_size=8)

    module, run = Grows(), trainer(max_epochs=4, reload_dataloaders_every_n_epochs=2)
    run.fit(module)
    # Two epochs of one batch, then two epochs of two.
    assert (module.asked, run.global_step) == (2, 1 + 1 + 2 + 2)


def test_what_a_plateau_scheduler_watches_may_stand_beside_it() -> None:
    """Lightning's form {"optimizer", "lr_scheduler": scheduler, "monitor"}."""

    class Watches(Classifier):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=2.0**-40)
            plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=0.5, patience=0, eps=0
            )
            return {"optimizer": optimizer, "lr_scheduler": plateau, "monitor": "val_loss"}

    run = trainer(max_epochs=3)
    run.fit(Watches(), loader(16), loader(16))
    # So small a rate improves nothing: the second and the third epoch halve it.
    assert run.optimizers[0].param_groups[0]["lr"] == 2.0**-42


def test_hyper_parameters_kept_from_the_loggers_do_not_reach_them(tmp_path: Path) -> None:
    class Quiet(Classifier):
        def __init__(self, lr: float = 0.1) -> None:
            super().__init__(lr)
            self.save_hyperparameters(logger=False)

    for kind, logged in ((Classifier, {"lr": 0.1, "seed": 0}), (Quiet, None)):
        run = trainer(logger=True, default_root_dir=str(tmp_path), run=kind.__name__)
        run.fit(kind(), loader(16))
        file = tmp_path / "runs" / kind.__name__ / "hparams.yaml"
        assert (yaml.safe_load(file.read_text()) if file.exists() else None) == logged


def test_draws_at_the_start_of_training_do_not_shift_a_resumed_run(run_dir: Any) -> None:
    """A resumed fit calls on_train_start again; its generators go on where they were saved."""

    class Noisy(Classifier):
        def on_train_start(self) -> None:
            torch.rand(3)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            noise = torch.rand_like(batch[0]) * 0.1
            return cross_entropy(self(batch[0] + noise), batch[1])

    def fit(run: str, epochs: int, **more: Any) -> list[torch.Tensor]:
        torch.manual_seed(7)
        module = Noisy()
        trainer(run=run, max_epochs=epochs, enable_checkpointing=True).fit(module, loader(), **more)
        return weights(module)

    whole = fit("whole", 3)
    fit("parts", 2)
    assert equal(fit("parts", 3, ckpt_path="last"), whole)


def test_lbfgs_refuses_to_accumulate() -> None:
    class Quasi(Classifier):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ConfigError, match="cannot accumulate"):
        trainer(accumulate_grad_batches=2).fit(Quasi(), loader())


# pains/trainer.md row 27
def test_a_run_resumed_where_it_stopped_early_stays_stopped_unless_patience_was_raised() -> None:
    from renshu.callbacks import EarlyStopping

    def fit(patience: int, **more: Any) -> renshu.Trainer:
        run = trainer(
            run="a", max_epochs=9, enable_checkpointing=True,
            callbacks=[EarlyStopping("val_loss", patience=patience, min_delta=100.0)],
        )  # fmt: skip
        run.fit(Classifier(), loader(), loader(16), **more)
        return run

    stopped = fit(patience=2).progress.epochs
    assert stopped == 3
    assert fit(patience=2, ckpt_path="last").progress.epochs == stopped
    assert fit(patience=4, ckpt_path="last").progress.epochs == stopped + 2


# pains/trainer.md row 28
def test_a_mistyped_key_is_refused_by_the_sanity_validation_before_any_step() -> None:
    from renshu.callbacks import ModelCheckpoint

    run = trainer(enable_checkpointing=True, callbacks=[ModelCheckpoint(monitor="val_los")])
    with pytest.raises(ConfigError, match="val_los") as caught:
        run.fit(Classifier(), loader(), loader(16))
    assert "did you mean 'val_loss'" in str(caught.value)
    assert run.global_step == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_epochs": -3}, {"max_epochs": "3"}, {"max_epochs": 2.5}, {"min_epochs": -1},
        {"max_steps": -5}, {"accumulate_grad_batches": 2.5}, {"accumulate_grad_batches": 0},
        {"check_val_every_n_epoch": 0}, {"num_sanity_val_steps": -7}, {"log_every_n_steps": 0},
        {"fast_dev_run": -2}, {"seed": "x"}, {"seed": -1}, {"val_check_interval": 0},
        {"val_check_interval": -0.5}, {"gradient_clip_val": -1}, {"deterministic": "maybe"},
        {"reload_dataloaders_every_n_epochs": -1}, {"num_nodes": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_number_out_of_its_range_is_refused_with_its_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        trainer(**wrong)
    assert next(iter(wrong)) in str(caught.value)
    assert caught.value.allowed


def test_a_step_without_loss_updates_nothing_whatever_steps_the_optimiser() -> None:
    class Once(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx) if batch_idx == 0 else None

    class OwnStep(Once):
        def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any) -> None:
            optimizer.step(closure=closure)

    flat, own = Once(), OwnStep()
    runs = []
    for module in (flat, own):
        runs.append(trainer())
        runs[-1].fit(module, loader())
    assert equal(weights(flat), weights(own))
    assert [run.global_step for run in runs] == [1, 1]


def test_the_sanity_check_leaves_a_modules_own_generator_alone() -> None:
    class Draws(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.generator = torch.Generator().manual_seed(1)
            self.first: list[float] = []

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            torch.rand(1, generator=self.generator)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.first.append(torch.rand(1, generator=self.generator).item())
            return super().training_step(batch, batch_idx)

    module = Draws()
    trainer().fit(module, loader(), loader(16))
    expected = torch.rand(1, generator=torch.Generator().manual_seed(1)).item()
    assert module.first[0] == expected


# capabilities: torch.compile by one argument
def test_compile_compiles_the_parts_of_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__)
    )
    small_models.trainer(max_epochs=1, compile=True).fit(
        small_models.Classifier(), small_models.loader()
    )
    assert compiled == ["Sequential"]


# pains/trainer.md row 12
def test_a_compiled_module_keeps_its_names_and_its_log(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_, breaks = torch.nn.Module.compile, torch._dynamo.utils.counters["graph_break"]
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part: compile_(part, backend="eager"))
    torch._dynamo.reset()
    breaks.clear()
    plain, compiled = small_models.Classifier(), small_models.Classifier()
    small_models.trainer().fit(plain, small_models.loader())
    run = small_models.trainer(compile=True)
    run.fit(compiled, small_models.loader())
    assert not breaks
    assert float(run.callback_metrics["train_loss"]) > 0
    assert list(plain.state_dict()) == list(compiled.state_dict())
    plain.load_state_dict(compiled.state_dict())
    torch._dynamo.reset()


# capabilities C2
def test_batch_norm_over_all_processes_is_refused_where_torch_has_none() -> None:
    with pytest.raises(ConfigError, match="sync_batchnorm=True on cpu"):
        trainer(sync_batchnorm=True)


def test_a_trial_run_has_a_logger_that_keeps_nothing() -> None:
    class Draws(Classifier):
        def on_train_start(self) -> None:
            self.logger.log_image("x", [torch.zeros(3, 4, 4)])
            self.logger.experiment.add_histogram("w", self.net[0].weight, 0)

    small_models.trainer(fast_dev_run=True, logger=True).fit(Draws(), loader())
    assert not Path("runs").exists()
