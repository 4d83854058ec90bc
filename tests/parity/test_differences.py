"""What renshu does otherwise than Lightning, deliberately: the list is differences.md.

Each test asserts what renshu does, and where it is cheap that Lightning does something else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from compare import classifier, digits, lightning, loader, quiet, train, trainer
from test_callbacks import stochastic_weight_averaging_of_batch_norm
from test_optimisation import adversaries, manual_with_two_optimizers, some_losses_are_none
from torch import nn
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import ExponentialLR, StepLR
from torch.utils.data import DataLoader, Dataset

import renshu
import renshu.utilities
from renshu.errors import ConfigError

PAGE = Path(__file__).parent / "differences.md"


def fit(pl: Any, module: Any, *loaders: Any, **options: Any) -> Any:
    """The trainer after a quiet fit of one epoch."""
    with quiet(pl):
        runner = trainer(pl, **{"max_epochs": 1, **options})
        runner.fit(module, *loaders)
    return runner


def whole_batch_step(module: Any, n: int, first: int = 0) -> None:
    """One SGD step by hand on the mean loss of samples first … n."""
    images, labels = digits()
    optimizer = module.configure_optimizers()
    optimizer.zero_grad()
    module.loss((images[first:n], labels[first:n])).backward()
    optimizer.step()


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_every_difference_is_listed_with_its_test() -> None:
    named = re.findall(r"`(?:tests/[\w/]+\.py::)?(test_\w+)`", PAGE.read_text())
    here = [name for name in globals() if name.startswith("test_")]
    assert sorted(named) == sorted({*here} - {"test_every_difference_is_listed_with_its_test"})


# --- counting


def test_global_step_counts_batches_not_optimisers() -> None:
    assert train(renshu, manual_with_two_optimizers, listen=False).steps == 12
    assert train(lightning, manual_with_two_optimizers, listen=False).steps == 24


def test_a_batch_without_update_is_no_step() -> None:
    ours = train(renshu, some_losses_are_none, listen=False)
    theirs = train(lightning, some_losses_are_none, listen=False)
    assert (ours.steps, theirs.steps) == (8, 12)
    assert [step for step, _ in ours.logged["train_loss"]] == [*range(8)]


def test_a_second_fit_starts_anew() -> None:
    module = classifier(renshu)()
    runner = fit(renshu, module, loader())
    runner.fit(module, loader())
    assert runner.global_step == 6
    twice = classifier(renshu)()
    fit(renshu, twice, loader(), max_epochs=2)
    assert_equal_weights(module, twice)

    runner = fit(lightning, module := classifier(lightning)(), loader())
    before = [p.clone() for p in module.parameters()]
    with quiet(lightning):
        runner.fit(module, loader())
    assert all(map(torch.equal, before, module.parameters()))


# --- optimisation


def test_several_optimisers_step_together_in_automatic_mode() -> None:
    class Net(classifier(renshu)):
        def configure_optimizers(self) -> Any:
            first, _, last = self.net
            return [SGD(first.parameters(), lr=0.1), SGD(last.parameters(), lr=0.1)]

    module = Net()
    runner = fit(renshu, module, loader())
    assert runner.global_step == 6
    single = classifier(renshu)()
    fit(renshu, single, loader())
    assert_equal_weights(module, single)

    class Refused(adversaries(lightning)):
        automatic_optimization = True

    with pytest.raises(RuntimeError, match="multiple optimizers"):
        fit(lightning, Refused(), loader())


def test_the_last_accumulation_window_is_a_mean_of_what_it_has() -> None:
    module, by_hand = classifier(renshu)(), classifier(renshu)()
    fit(renshu, module, loader(40), accumulate_grad_batches=4)
    whole_batch_step(by_hand, 32)
    whole_batch_step(by_hand, 40, first=32)
    assert_equal_weights(module, by_hand)


def test_uneven_batches_of_a_window_count_by_their_samples() -> None:
    module, by_hand = classifier(renshu)(), classifier(renshu)()
    fit(renshu, module, loader(13), accumulate_grad_batches=2)
    whole_batch_step(by_hand, 13)
    assert_equal_weights(module, by_hand)


def test_schedulers_step_after_validation_and_after_the_batchs_hooks() -> None:
    seen: dict[str, list[float]] = {"batch": [], "validation": [], "epoch": []}

    class Net(classifier(renshu)):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=1.0)
            steps = {"scheduler": ExponentialLR(optimizer, 0.5), "interval": "step"}
            return [optimizer], [steps, StepLR(optimizer, 1, gamma=0.1)]

        def note(self, when: str) -> None:
            if not self.trainer.sanity_checking:
                seen[when].append(self.trainer.optimizers[0].param_groups[0]["lr"])

        def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
            self.note("batch")

        def on_validation_epoch_end(self) -> None:
            self.note("validation")

        def on_train_epoch_end(self) -> None:
            self.note("epoch")

    runner = fit(renshu, Net(), loader(24), loader(8))
    assert seen == {"batch": [1.0, 0.5, 0.25], "validation": [0.25], "epoch": [0.25]}
    assert runner.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0125)


def test_an_unknown_key_of_a_scheduler_is_refused() -> None:
    class Net(classifier(renshu)):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1)
            return [optimizer], [{"scheduler": StepLR(optimizer, 1), "intervall": "step"}]

    with pytest.raises(ConfigError, match="'intervall'"):
        fit(renshu, Net(), loader())


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    def exploding(pl: Any) -> Any:
        class Net(classifier(pl)):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                return self.loss(batch) * (float("nan") if batch_idx == 2 else 1.0)

        return Net()

    with pytest.raises(renshu.errors.NonFiniteError, match="optimiser step 2"):
        fit(renshu, exploding(renshu), loader())
    fit(lightning, exploding(lightning), loader())


def test_clip_gradients_may_use_another_limit_than_the_trainer() -> None:
    def clipping(pl: Any) -> Any:
        class Net(classifier(pl)):
            def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
                self.clip_gradients(optimizer, 0.1, "norm")
                self.norm = nn.utils.get_total_norm(p.grad for p in self.parameters())

        return Net()

    fit(renshu, module := clipping(renshu), loader(), gradient_clip_val=5.0)
    assert module.norm == pytest.approx(0.1, abs=1e-3)
    with pytest.raises(Exception, match="use only one"):
        fit(lightning, clipping(lightning), loader(), gradient_clip_val=5.0)


# --- modes, generators, order


def test_every_part_goes_back_to_its_own_mode_after_validation() -> None:
    class Net(classifier(renshu)):
        def __init__(self):
            super().__init__()
            self.frozen = nn.Dropout().eval()

        def on_validation_model_train(self) -> None:
            raise AssertionError("Lightning's hook; nobody needs it")

    module = Net()
    runner = fit(renshu, module, loader(), loader(8))
    assert module.training and not module.frozen.training
    runner.validate(module, loader(8), verbose=False)
    assert module.training and not module.frozen.training


def test_the_order_of_a_shuffle_depends_on_seed_and_epoch_alone() -> None:
    def labels(pl: Any, draws_before: int) -> list[int]:
        seen = list[int]()

        class Net(classifier(pl)):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                seen.extend(batch[1].tolist())
                return self.loss(batch)

        module = Net()
        torch.manual_seed(7)
        torch.rand(draws_before)
        fit(pl, module, loader(shuffle=True))
        return seen

    assert labels(renshu, 0) == labels(renshu, 3)
    assert labels(lightning, 0) != labels(lightning, 3)


def test_data_sets_that_draw_do_not_disturb_the_training_steps_draws() -> None:
    class Drawing(Dataset):
        def __init__(self, draws: int):
            self.draws = draws

        def __len__(self) -> int:
            return 16

        def __getitem__(self, index: int) -> Any:
            torch.rand(self.draws)
            return tuple(part[index] for part in digits())

    def drawn(pl: Any, draws: int) -> list[float]:
        seen = list[float]()

        class Net(classifier(pl)):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                seen.append(float(torch.rand(())))
                return self.loss(batch)

        module = Net()
        torch.manual_seed(7)
        fit(pl, module, DataLoader(Drawing(draws), 8), DataLoader(Drawing(draws), 8))
        return seen

    assert drawn(renshu, 1) == drawn(renshu, 5)
    assert drawn(lightning, 1) != drawn(lightning, 5)


# --- logged values


def test_an_epochs_mean_counts_samples_whatever_stands_first_in_a_batch() -> None:
    """Lightning weighs by the first tensor that it finds in a batch."""

    def collate(rows: list[Any]) -> dict[str, Any]:
        images, labels = zip(*rows, strict=True)
        return {"classes": torch.arange(10), "x": torch.stack(images), "y": torch.stack(labels)}

    def mean(pl: Any) -> tuple[float, float]:
        class Net(classifier(pl)):
            def validation_step(self, batch: Any, batch_idx: int) -> Any:
                self.log("val_loss", self.loss((batch["x"], batch["y"])))

        module = Net()
        with quiet(pl):
            found = trainer(pl).validate(module, loader(21, collate_fn=collate), verbose=False)
        with torch.no_grad():
            images, labels = digits()
            return found[0]["val_loss"], float(module.loss((images[:21], labels[:21])))

    found, exact = mean(renshu)
    assert found == pytest.approx(exact, abs=1e-6)
    found, exact = mean(lightning)
    assert abs(found - exact) > 1e-4


def test_an_epochs_mean_is_summed_in_float64() -> None:
    def mean(pl: Any) -> float:
        class Net(classifier(pl)):
            def validation_step(self, batch: Any, batch_idx: int) -> Any:
                self.log("value", torch.tensor(2.0**24 + (batch_idx == 0)))

        return trainer(pl).validate(Net(), loader(3, batch_size=1), verbose=False)[0]["value"]

    exact = (torch.tensor(2.0**24 + 1).item() + 2 * 2.0**24) / 3
    assert mean(renshu) == pytest.approx(exact, rel=1e-12)


def test_the_pass_for_batch_norms_statistics_is_no_training() -> None:
    ours = train(renshu, stochastic_weight_averaging_of_batch_norm, listen=False)
    theirs = train(lightning, stochastic_weight_averaging_of_batch_norm, listen=False)
    assert len(ours.logged["train_loss"]) == ours.steps == 4 * 6
    assert len(theirs.logged["train_loss"]) == theirs.steps == 4 * 6 + 1


def test_log_with_neither_step_nor_epoch_is_allowed() -> None:
    def logging(pl: Any) -> Any:
        class Net(classifier(pl)):
            def training_step(self, batch: Any, batch_idx: int) -> Any:
                self.log("nothing", 1.0, on_step=False, on_epoch=False)
                return self.loss(batch)

        return Net()

    fit(renshu, logging(renshu), loader())
    with pytest.raises(Exception, match="not useful"):
        fit(lightning, logging(lightning), loader())


# --- data


def test_a_list_of_batches_is_a_loader() -> None:
    module, usual = classifier(renshu)(), classifier(renshu)()
    runner = fit(renshu, module, list(loader()), list(loader(24)))
    assert runner.num_training_batches == 6
    assert runner.num_val_batches == [3]
    fit(renshu, usual, loader())
    assert_equal_weights(module, usual)


def test_training_may_read_loaders_one_after_the_other() -> None:
    module, usual = classifier(renshu)(), classifier(renshu)()
    images, labels = digits()
    parts = [[(images[:8], labels[:8])], [(images[i : i + 8], labels[i : i + 8]) for i in (8, 16)]]
    fit(renshu, module, renshu.utilities.CombinedLoader(parts, "sequential"))
    fit(renshu, usual, loader(24))
    assert_equal_weights(module, usual)


def test_loaders_are_asked_for_before_the_optimisers() -> None:
    """What is wrong with the data shows before anything else is made."""
    asked = list[str]()

    class Net(classifier(renshu)):
        def train_dataloader(self) -> Any:
            asked.append("train")
            return loader(8)

        def val_dataloader(self) -> Any:
            asked.append("val")
            return loader(8)

        def configure_optimizers(self) -> Any:
            asked.append("optimisers")
            return super().configure_optimizers()

    fit(renshu, Net())
    assert asked == ["train", "val", "optimisers"]


def test_a_training_loader_without_batches_is_refused() -> None:
    with pytest.raises(ConfigError, match="no batch"):
        fit(renshu, classifier(renshu)(), loader(), limit_train_batches=0)
    assert fit(lightning, classifier(lightning)(), loader(), limit_train_batches=0).global_step == 0


# --- saving


def test_the_state_is_encoded_once_before_the_first_batch_and_saved_at_the_end() -> None:
    saved_at = list[int]()

    class Net(classifier(renshu)):
        def on_save_checkpoint(self, checkpoint: Any) -> None:
            saved_at.append(self.global_step)

    saver = renshu.callbacks.ModelCheckpoint(dirpath="saved", every_n_train_steps=4)
    fit(renshu, Net(), loader(), enable_checkpointing=True, callbacks=[saver])
    assert saved_at == [0, 4, 6]
    assert Path(saver.last_model_path).name == "step=000006"


def test_the_newest_checkpoint_is_kept_beside_the_best() -> None:
    class Net(classifier(renshu)):
        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("worse", float(self.current_epoch))

    saver = renshu.callbacks.ModelCheckpoint(dirpath="saved", monitor="worse")
    options = {"enable_checkpointing": True, "callbacks": [saver], "max_epochs": 3}
    fit(renshu, Net(), loader(), loader(8), **options)
    kept = {path.name for path in Path("saved").glob("step=*")}
    assert kept == {"step=000006", "step=000018"}
    assert Path(saver.best_model_path).name == "step=000006"


def test_callbacks_see_checkpoints_of_weights_alone() -> None:
    """The moving average puts its weights in there."""
    average = renshu.callbacks.EMAWeightAveraging(decay=0.5)

    class Saving(renshu.Callback):
        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.save_checkpoint("saved", weights_only=True)
            self.plain = [p.detach().clone() for p in module.parameters()]

    module, saving = classifier(renshu)(), Saving()
    fit(renshu, module, loader(), callbacks=[average, saving])
    loaded = type(module).load_from_checkpoint("saved")
    assert_equal_weights(loaded, module)  # the average stands in the module after the fit
    assert not all(map(torch.equal, saving.plain, loaded.parameters()))


def test_nothing_is_checked_before_a_continued_fit() -> None:
    fit(renshu, classifier(renshu)(), loader(), loader(8)).save_checkpoint("saved")
    checked = list[bool]()

    class Net(classifier(renshu)):
        def on_validation_start(self) -> None:
            checked.append(self.trainer.sanity_checking)

    trainer(renshu, max_epochs=2).fit(Net(), loader(), loader(8), ckpt_path="saved")
    assert checked == [False]


def test_an_average_leaves_counts_alone_and_starts_at_its_epoch() -> None:
    def trained(pl: Any, **how: Any) -> Any:
        class Net(classifier(pl)):
            def __init__(self):
                super().__init__()
                self.net.insert(1, nn.BatchNorm1d(16))

        module = Net()
        average = pl.callbacks.EMAWeightAveraging(decay=0.5, **how)
        fit(pl, module, loader(), max_epochs=2, callbacks=[average])
        return module

    assert trained(renshu).net[1].num_batches_tracked == 12
    assert trained(lightning).net[1].num_batches_tracked < 12

    late = trained(renshu, update_starting_at_epoch=1)
    from_a_step = trained(renshu, update_starting_at_step=6)
    assert_equal_weights(late, from_a_step)


def test_hyper_parameters_that_cannot_be_stored_are_refused_by_name() -> None:
    class Net(classifier(renshu)):
        def __init__(self, criterion: Any):
            super().__init__()
            self.save_hyperparameters()

    saver = renshu.callbacks.ModelCheckpoint(dirpath="saved")
    with pytest.raises(renshu.errors.RenshuError, match="criterion"):
        fit(renshu, Net(object()), loader(), enable_checkpointing=True, callbacks=[saver])


def test_lbfgs_with_accumulation_is_refused() -> None:
    class Net(classifier(renshu)):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ConfigError, match="LBFGS"):
        fit(renshu, Net(), loader(), accumulate_grad_batches=2)


def test_two_optimisers_that_share_a_parameter_are_refused() -> None:
    class Net(classifier(renshu)):
        def configure_optimizers(self) -> Any:
            return [SGD(self.parameters(), lr=0.1), Adam(self.net[0].parameters())]

    with pytest.raises(ConfigError, match="share a parameter"):
        fit(renshu, Net(), loader())


# --- evaluation


def test_an_epoch_cut_short_ends_as_every_epoch() -> None:
    class Cut(classifier(renshu)):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> Any:
            return -1 if batch_idx == 4 else None

    runner = fit(renshu, Cut(), loader(), loader(24))
    assert runner.global_step == 4
    assert "val_loss" in runner.callback_metrics


def test_single_batches_of_an_evaluation_are_not_sent_to_loggers() -> None:
    sent: list[str] = []

    class Kept(renshu.loggers.Logger):
        def log_metrics(self, metrics: Any, step: int) -> None:
            sent.extend(metrics)

    class Steps(classifier(renshu)):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("each", self.loss(batch), on_step=True, on_epoch=True)

    runner = fit(renshu, Steps(), loader(), loader(24), logger=Kept())
    assert "each_epoch" in sent and "each_step" not in sent
    assert "each_epoch" in runner.callback_metrics


def test_measuring_alone_opens_no_run() -> None:
    module = classifier(renshu)()
    with quiet(renshu):
        found = trainer(renshu, logger=True).validate(module, loader(24), verbose=False)
    assert found[0]["val_loss"] > 0
    assert not Path("runs").exists()
