"""Searches for a learning rate and a batch size: as Lightning's, and without a trace."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, TensorDataset

import renshu
from killing import check_exact
from renshu.callbacks import BatchSizeFinder, LearningRateFinder
from renshu.callbacks.lr_finder import LRFinder
from renshu.errors import ConfigError, RunError
from renshu.tuner import Tuner
from small_models import Classifier, digits, equal, loader, trainer, weights

QUIET: dict[str, Any] = {
    "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
    "enable_progress_bar": False, "enable_model_summary": False,
}  # fmt: skip


def fixed(batch_size: int = 8, n: int = 160, **options: Any) -> DataLoader[Any]:
    """Digits in their order."""
    return loader(n, batch_size, shuffle=False, **options)


def module_of(library: Any, fits: int = 10**9, n: int = 96) -> Any:
    """A classifier of that library, which runs out of memory above `fits` samples a batch."""

    class Net(library):
        def __init__(self) -> None:
            super().__init__()
            self.lr, self.batch_size = 0.1, 4
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if len(batch[0]) > fits:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
            return cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

        def train_dataloader(self) -> Any:
            return fixed(self.batch_size, n)

    return Net()


# --- the learning rate


# capabilities C3; the warnings are those of Lightning
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "test",
    [
        {"num_training": 60, "max_lr": 10.0},
        {"num_training": 60, "min_lr": 1e-4, "max_lr": 1.0, "mode": "linear"},
        {"num_training": 60, "min_lr": 1e-4, "max_lr": 5.0, "mode": "linear"},
        {"num_training": 45, "min_lr": 1e-3, "max_lr": 1e4, "early_stop_threshold": None},
    ],
)
def test_rates_losses_and_suggestion_are_lightnings(test: dict[str, Any], run_dir: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    tuner = pytest.importorskip("pytorch_lightning.tuner")
    theirs = tuner.Tuner(lightning.Trainer(**QUIET, max_epochs=9)).lr_find(
        module_of(lightning.LightningModule), fixed(), update_attr=False, **test
    )
    ours = Tuner(trainer(max_epochs=9)).lr_find(
        module_of(renshu.Module), fixed(), update_attr=False, **test
    )
    assert ours is not None
    for name in ("lr", "loss"):
        assert ours.results[name] == pytest.approx(theirs.results[name], rel=1e-5)
    assert len(ours.results["lr"]) > 20
    assert (len(ours.results["lr"]) < test["num_training"]) == (test["max_lr"] == 5.0)
    for skipped in ({}, {"skip_begin": 3, "skip_end": 7}):
        expected = theirs.suggestion(**skipped)
        assert ours.suggestion(**skipped) == pytest.approx(expected, rel=1e-6)


class Everything(Classifier):
    """Changes all that a module may hold: buffers, own generators, metrics, attributes."""

    def __init__(self, lr: float = 0.05, batch_size: int = 8):
        super().__init__(lr)
        random.seed(4)
        np.random.seed(4)
        self.batch_norm, self.dropout = nn.BatchNorm1d(64), nn.Dropout(0.3)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.accuracy = torchmetrics.MeanMetric()
        self.losses, self.count, self.generator = list[Tensor](), 0, torch.Generator()
        self.total = torch.zeros(())
        self.net[0].weight.requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        noise = torch.randn(batch[0].shape, generator=self.generator)
        noise += random.random() + float(np.random.rand())
        x = self.dropout(self.batch_norm(batch[0] + 0.01 * noise))
        loss = cross_entropy(self.net(x), batch[1])
        self.accuracy(loss.detach())
        self.seen += 1
        self.count, self.total = self.count + 1, self.total.add_(loss.detach())
        self.losses.append(loss.detach())
        self.log("loss", loss, on_epoch=True)
        return loss

    def train_dataloader(self) -> Any:
        return loader(batch_size=self.hparams.batch_size)


def whole_state(module: Any) -> list[Any]:
    """All of it that can be compared, as bytes where it is a tensor."""
    tensors = [*module.parameters(), *module.buffers(), module.total, module.accuracy.mean_value]
    flags = [p.requires_grad for p in module.parameters()]
    modes = [part.training for part in module.modules()]
    numbers = [module.count, len(module.losses), module.accuracy._update_count]
    gradients = [None if p.grad is None else p.grad.numpy().tobytes() for p in module.parameters()]
    arrays = [tensor.detach().numpy().tobytes() for tensor in tensors]
    return [arrays, flags, modes, numbers, gradients, module.generator.get_state().tolist()]


def global_generators() -> list[Any]:
    state = np.random.get_state()
    return [torch.get_rng_state().tolist(), random.getstate(), state[1].tolist(), state[2:]]


SEARCHES: dict[str, Callable[[Tuner, Any], Any]] = {
    "lr_find": lambda tuner, module: tuner.lr_find(module, num_training=20, update_attr=False),
    "scale_batch_size": lambda tuner, module: tuner.scale_batch_size(module, max_trials=3),
}


# capabilities C3; pains/trainer.md row 34
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("trained", [False, True])
def test_a_search_leaves_everything_bit_equal(search: str, trained: bool, run_dir: Path) -> None:
    run = trainer(max_epochs=2, logger=True, enable_checkpointing=True)
    module = Everything()
    module.net[2].eval()
    if trained:
        run.fit(module)
        module.net[2].bias.grad = torch.full((10,), 0.5)
    before, generators = whole_state(module), global_generators()
    counters = run.global_step, run.current_epoch, vars(run.progress).copy()
    optimisers = [repr(o.state_dict()) for o in run.optimizers]
    known, files = dict(run.logged_metrics), sorted(run_dir.rglob("*"))
    attached, callbacks = module._trainer, list(run.callbacks)
    assert SEARCHES[search](Tuner(run), module)
    assert whole_state(module) == before
    assert global_generators() == generators
    assert (run.global_step, run.current_epoch, vars(run.progress)) == counters
    assert [repr(o.state_dict()) for o in run.optimizers] == optimisers
    assert (run.logged_metrics, run.callbacks) == (known, callbacks)
    assert module._trainer is attached
    assert sorted(run_dir.rglob("*")) == files


# capabilities C3
def test_a_fit_after_a_search_is_that_without(run_dir: Path) -> None:
    found = list[Any]()
    for search in (False, True):
        run, module = trainer(max_epochs=2), Everything()
        if search:
            Tuner(run).lr_find(module, num_training=15, update_attr=False)
        run.fit(module)
        found.append(whole_state(module))
    assert found[0] == found[1]


def test_a_search_puts_samplers_and_their_generators_back() -> None:
    class Counting(torch.utils.data.Sampler[int]):
        def __init__(self) -> None:
            self.begun, self.generator = 0, np.random.default_rng(3)

        def __iter__(self) -> Any:
            self.begun += 1
            return iter(self.generator.permutation(40).tolist())

        def __len__(self) -> int:
            return 40

        def state_dict(self) -> dict[str, Any]:
            return {"begun": self.begun, "generator": self.generator.bit_generator.state}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.begun, self.generator.bit_generator.state = state["begun"], state["generator"]

    sampler = Counting()
    before = sampler.state_dict()
    data = DataLoader(TensorDataset(*digits(40)), 8, sampler=sampler)
    Tuner(trainer()).lr_find(Classifier(), data, num_training=12)
    assert sampler.state_dict() == before


# capabilities C3
def test_the_suggestion_is_set_and_trained_with() -> None:
    module = Classifier(lr=1.0)
    tuned = Tuner(trainer()).lr_find(module, fixed(), num_training=40)
    assert tuned is not None
    assert module.hparams.lr == tuned.suggestion() != 1.0
    run = trainer()
    run.fit(module, fixed())
    assert run.optimizers[0].param_groups[0]["lr"] == tuned.suggestion()


def test_the_rate_may_have_another_name_or_live_in_the_data_module() -> None:
    class Named(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.speed = self.learning_rate = 1.0

    class Data(renshu.DataModule):
        speed = 3.0

        def train_dataloader(self) -> Any:
            return fixed()

    module, data = Named(), Data()
    found = Tuner(trainer()).lr_find(module, datamodule=data, num_training=30, attr_name="speed")
    assert found is not None
    assert module.speed == data.speed == found.suggestion()
    assert (module.learning_rate, module.hparams.lr, data.trainer) == (1.0, 0.1, None)


class Scheduled(Classifier):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)
        steps = int(self.trainer.estimated_stepping_batches)
        return [optimizer], [
            {"scheduler": OneCycleLR(optimizer, self.hparams.lr, steps), "interval": "step"}
        ]


# capabilities C3
def test_the_callback_trains_as_if_the_rate_had_been_given() -> None:
    finder, module = LearningRateFinder(num_training_steps=30), Scheduled(lr=7.0)
    trainer(max_epochs=2, callbacks=[finder]).fit(module, loader())
    assert finder.optimal_lr is not None
    given = Scheduled(lr=finder.optimal_lr.suggestion() or 0)
    assert given.hparams.lr == module.hparams.lr < 1
    trainer(max_epochs=2).fit(given, loader())
    assert equal(weights(module), weights(given))


# capabilities C3
def test_the_callback_may_act_again_in_a_later_epoch() -> None:
    rates = list[float]()

    class Again(LearningRateFinder):
        def on_fit_start(self, trainer: Any, module: Any) -> None: ...
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            if trainer.current_epoch == 1:
                steps, momentum = trainer.global_step, trainer.optimizers[0].state_dict()["state"]
                self.lr_find(trainer, module)
                assert trainer.global_step == steps == 12
                assert str(trainer.optimizers[0].state_dict()["state"]) == str(momentum)

        def on_train_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    finder = Again(num_training_steps=20)
    trainer(max_epochs=2, callbacks=[finder]).fit(Classifier(lr=0.25), loader())
    assert finder.optimal_lr is not None
    assert rates == [0.25] * 12 + [finder.optimal_lr.suggestion()] * 12


def test_a_resumed_run_keeps_what_was_found(run_dir: Path) -> None:
    def callbacks() -> list[Any]:
        return [LearningRateFinder(num_training_steps=15), BatchSizeFinder(max_trials=3)]

    def end(run: Any, module: Any) -> Any:
        return module.state_dict(), dict(module.hparams)

    for save in (3, 12, 14):
        _, found = check_exact(
            save, loader=lambda: None, module=Everything, callbacks=callbacks, result=end,
            max_epochs=2,
        )  # fmt: skip
        assert (found["batch_size"], found["lr"] == 0.05) == (8, False)


# --- the result of a range test


def falling(steps: int = 81) -> LRFinder:
    """A loss of -tanh(8 (rate - 1/2)) for rates 0 to 1: it falls most steeply at 1/2."""
    found = LRFinder("linear", 1e-9, 1.0, steps)
    rates = torch.linspace(0, 1, steps, dtype=torch.float64)
    found.results = {"lr": rates.tolist(), "loss": (-torch.tanh(8 * (rates - 0.5))).tolist()}
    return found


def test_the_suggestion_is_where_the_loss_falls_most_steeply() -> None:
    found = falling()
    assert found.suggestion() == found.suggestion(0, 0) == 0.5
    assert found.suggestion(skip_begin=60) == 0.75
    found.results["loss"][40] = float("nan")
    assert found.suggestion() in (39 / 80, 41 / 80)


def test_too_few_losses_give_no_suggestion(capsys: Any) -> None:
    found = falling(12)
    assert found.suggestion() is None
    assert "too few finite losses" in capsys.readouterr().err
    assert found.suggestion(9) is not None
    module = Classifier(lr=0.3)
    Tuner(trainer()).lr_find(module, fixed(), num_training=8)
    assert module.hparams.lr == 0.3


# capabilities C3
def test_the_plot_shows_losses_and_suggestion() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    found = falling()
    figure = found.plot(suggest=True)
    axes = figure.axes[0]
    line, mark = axes.lines
    assert (line.get_xdata() == found.results["lr"]).all()
    assert (line.get_ydata() == found.results["loss"]).all()
    assert mark.get_xdata() == [0.5]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()) == (
        "Learning rate", "Loss", "linear",
    )  # fmt: skip
    found.mode = "exponential"
    assert found.plot(ax=axes) is figure
    assert (axes.get_xscale(), len(axes.lines)) == ("log", 3)
    pyplot.close(figure)


# --- the batch size


# capabilities C3; the warnings are those of Lightning
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("fits", "search", "expected"),
    [
        (20, {}, 16),
        (20, {"mode": "binsearch", "margin": 0.0}, 20),
        (10, {"mode": "binsearch"}, 9),
        (500, {}, 128),  # the first size beyond the 96 samples
        (500, {"max_trials": 3}, 8),
        (500, {"mode": "binsearch", "max_trials": 4, "margin": 0.25}, 12),
    ],
)
def test_the_batch_size_is_lightnings(
    fits: int,
    search: dict[str, Any],
    expected: int,
    run_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lightning = pytest.importorskip("pytorch_lightning")
    tuner = pytest.importorskip("pytorch_lightning.tuner")
    # A second each time with all that a test session holds.
    collect = "pytorch_lightning.tuner.batch_size_scaling.garbage_collection_cuda"
    monkeypatch.setattr(collect, lambda: None)
    found = list[Any]()
    for kind, library, run in (
        (tuner.Tuner, lightning.LightningModule, lightning.Trainer(**QUIET, max_epochs=2)),
        (Tuner, renshu.Module, trainer(max_epochs=2)),
    ):
        module = module_of(library, fits)
        found.append((kind(run).scale_batch_size(module, **search), module.batch_size))
    assert found[0] == found[1] == (expected, expected)


# Lightning tries the first size with the loader of the size before, and may search for ever here.
@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"init_val": 50}, 12),
        ({"init_val": 64, "mode": "binsearch", "margin": 0.0}, 20),
        ({"init_val": 20, "mode": "binsearch", "margin": 0.0}, 20),
        ({"max_val": 11}, 11),
    ],
)
def test_the_size_that_is_given_back_was_tried(search: dict[str, Any], expected: int) -> None:
    module = module_of(renshu.Module, fits=20)
    assert Tuner(trainer()).scale_batch_size(module, **search) == expected
    assert module.batch_size == expected


def allocates(size: int) -> Any:
    """A module that asks the CPU's allocator for an exabyte above a batch of `size`."""

    class Large(Everything):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if len(batch[0]) > size:
                torch.empty(2**60, dtype=torch.uint8)
            return super().training_step(batch, batch_idx)

        validation_step = test_step = predict_step = training_step

        def val_dataloader(self) -> Any:
            return self.train_dataloader()

        test_dataloader = predict_dataloader = val_dataloader

    return Large()


# capabilities C3
@pytest.mark.parametrize("method", ["fit", "validate", "test", "predict"])
def test_the_cpus_allocator_limits_every_method(method: str) -> None:
    module = allocates(21)
    before = whole_state(module)
    search = {"method": method, "mode": "binsearch", "margin": 0.0}
    assert Tuner(trainer()).scale_batch_size(module, **search) == 21
    assert module.hparams.batch_size == 21
    assert whole_state(module) == before


def test_the_trial_trains_some_steps_of_each_size() -> None:
    sizes = list[int]()

    class Noted(Everything):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            sizes.append(len(batch[0]))
            return super().training_step(batch, batch_idx)

    Tuner(trainer(limit_train_batches=1)).scale_batch_size(
        Noted(), steps_per_trial=2, init_val=3, max_trials=4, max_val=20
    )
    assert sizes == [3, 3, 6, 6, 12, 12, 20, 20]


# capabilities C3
def test_the_callback_goes_on_with_the_size_that_was_found() -> None:
    finder, module = BatchSizeFinder(), allocates(20)
    run = trainer(max_epochs=2, callbacks=[finder], num_sanity_val_steps=0)
    run.fit(module)
    assert (finder.optimal_batch_size, module.hparams.batch_size) == (16, 16)
    assert (run.num_training_batches, run.num_val_batches, run.global_step) == (6, [6], 12)
    given = allocates(20)
    given.hparams.batch_size = 16
    trainer(max_epochs=2, num_sanity_val_steps=0).fit(given)
    assert whole_state(given) == whole_state(module)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_the_callback_works_in_evaluations(stage: str) -> None:
    sizes, module = list[int](), allocates(20)

    class Noted(BatchSizeFinder):
        def on_validation_batch_end(self, trainer: Any, module: Any, *given: Any) -> None:
            sizes.append(len(given[1][0]))

        on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    getattr(trainer(callbacks=[Noted()]), stage)(module)
    assert sizes == [16] * 6


def test_a_data_modules_batch_size_is_set() -> None:
    class Data(renshu.DataModule):
        def __init__(self, batch_size: int = 2):
            super().__init__()
            self.save_hyperparameters()
            self.batch_size = batch_size

        def train_dataloader(self) -> Any:
            assert self.hparams.batch_size == self.batch_size
            return DataLoader(TensorDataset(*digits(40)), self.batch_size, drop_last=True)

    data = Data()
    # A batch of 64 would leave nothing of 40 samples with drop_last.
    assert Tuner(trainer()).scale_batch_size(Classifier(), data) == 32
    assert (data.batch_size, data.hparams.batch_size, data.trainer) == (32, 32, None)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), MemoryError("out"),
              ValueError("out of memory")]
)  # fmt: skip
def test_any_other_error_ends_the_search_and_leaves_no_trace(error: Exception) -> None:
    class Fails(Everything):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if len(batch[0]) > 4:
                raise error
            return super().training_step(batch, batch_idx)

    module = Fails()
    before, generators = whole_state(module), global_generators()
    with pytest.raises(type(error), match=str(error)):
        Tuner(trainer()).scale_batch_size(module)
    assert whole_state(module) == before
    assert global_generators() == generators
    assert (module.hparams.batch_size, module._trainer) == (8, None)


# --- refusals


def two_optimisers() -> Any:
    class Two(Classifier):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(part.parameters(), 0.1) for part in (self.net[0], self.net[2])]

    return Two()


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda t: t.lr_find(Classifier(), fixed(), method="validate"), "method='validate'"),
        (lambda t: t.lr_find(Classifier(), fixed(), mode="log"), "no mode 'log'"),
        (lambda t: t.lr_find(Classifier(), fixed(), min_lr=1.0, max_lr=0.1), "min_lr=1.0"),
        (lambda t: t.lr_find(Classifier(), fixed(), num_training=0), "0 steps"),
        (lambda t: t.lr_find(Classifier(), fixed(), attr_name="speed"), "has speed"),
        (lambda t: t.lr_find(two_optimisers(), fixed()), "2 optimisers"),
        (lambda t: t.lr_find("model", fixed()), "got a str"),
        (lambda t: t.lr_find(Classifier(), dataloaders=fixed()), "other loaders"),
        (lambda t: t.scale_batch_size(Everything(), fixed()), "given directly"),
        (lambda t: t.scale_batch_size(Everything(), method="tune"), "no method 'tune'"),
        (lambda t: t.scale_batch_size(Everything(), mode="linear"), "no mode 'linear'"),
        (lambda t: t.scale_batch_size(Everything(), margin=1.0), "margin=1.0"),
        (lambda t: t.scale_batch_size(Everything(), init_val=0), "nothing to try"),
        (lambda t: t.scale_batch_size(Everything(), batch_arg_name="size"), "has size"),
        (lambda t: t.scale_batch_size(Everything(), fixed(), method="test"), "other loaders"),
    ],
)
def test_what_cannot_be_searched_is_refused(act: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        act(Tuner(trainer()))


def test_a_search_that_fits_nothing_says_so() -> None:
    with pytest.raises(RunError, match="not even a batch of 1 fits"):
        Tuner(trainer()).scale_batch_size(allocates(0), init_val=4)


def test_a_finder_of_the_trainer_does_not_search_twice() -> None:
    with pytest.raises(ConfigError, match="has a BatchSizeFinder already"):
        Tuner(trainer(callbacks=[BatchSizeFinder()])).scale_batch_size(Everything())


def test_fast_dev_run_searches_nothing(capsys: Any) -> None:
    tuner = Tuner(trainer(fast_dev_run=True))
    assert tuner.lr_find(Classifier(), fixed()) is None
    assert tuner.scale_batch_size(Everything()) is None
    assert capsys.readouterr().err.count("is not searched") == 2
