"""What log() means: exact means, names, moments, and nothing read back in a step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchmetrics
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset

import renshu
from renshu.errors import ConfigError
from renshu.loggers.logger import Logger
from small_models import Classifier, digits, loader, trainer


class Kept(Logger):
    """A user's own logger: keeps what it gets."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: int) -> None:
        self.rows.append((step, dict(metrics)))


# pains/trainer.md row 30
def test_an_epoch_mean_over_unequal_batches_is_the_sample_mean() -> None:
    module, run = Classifier(), trainer()
    values = run.validate(module, loader(90, batch_size=8), verbose=False)
    images, labels = digits(90)
    expected = cross_entropy(module(images).double(), labels).item()
    assert values[0]["val_loss"] == pytest.approx(expected, abs=1e-7)


def test_a_batch_of_unclear_size_raises_and_names_its_parts() -> None:
    class Odd(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("x", 1.0)

    batches = [{"image": torch.zeros(4, 3), "box": torch.zeros(7, 4)}]
    with pytest.raises(ConfigError, match=r"batch\['box'\]"):
        trainer().validate(Odd(), batches, verbose=False)

    class Given(Classifier):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("x", 1.0, batch_size=4)

    assert trainer().validate(Given(), batches, verbose=False)[0] == {"x": 1.0}


def test_iterable_data_weigh_by_the_samples_of_each_batch() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Any:
            images, labels = digits(30)
            yield from zip(images, labels, strict=True)

    module = Classifier()
    values = trainer().validate(module, DataLoader(Stream(), batch_size=8), verbose=False)
    images, labels = digits(30)
    # The batches' losses are float32 here, exact to 2.4e-7 at this size.
    assert values[0]["val_loss"] == pytest.approx(
        cross_entropy(module(images).double(), labels).item(), abs=5e-7
    )


def test_names_on_step_on_epoch_and_both() -> None:
    class Named(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("number", float(batch_idx))
            self.log("sum", 1.0, on_step=False, on_epoch=True, reduce_fx="sum")
            self.log("top", float(batch_idx), on_step=False, on_epoch=True, reduce_fx=max)
            self.log("both", float(batch_idx), on_step=True, on_epoch=True)
            self.log("hidden", 1.0, logger=False, on_epoch=True)
            return cross_entropy(self(batch[0]), batch[1])

        def on_train_epoch_end(self) -> None:
            self.log("end", 7.0)

    kept = Kept()
    run = trainer(logger=[kept], log_every_n_steps=4)
    run.fit(Named(), loader(96))
    assert [step for step, row in kept.rows if "number" in row] == [3, 7, 11]
    last = kept.rows[-2][1]
    assert last["sum"] == 12
    assert last["top"] == 11
    assert last["both_epoch"] == 5.5
    assert last["end"] == 7
    assert "both_step" in kept.rows[0][1]
    assert not any("hidden" in name for _, row in kept.rows for name in row)
    assert float(run.callback_metrics["hidden_epoch"]) == 1.0
    assert all(row["samples"] == 8 * (step + 1) for step, row in kept.rows)


# pains/trainer.md row 29
def test_every_record_has_step_epoch_and_samples_and_steps_only_grow() -> None:
    kept = Kept()
    trainer(logger=[kept], log_every_n_steps=5, max_epochs=3, val_check_interval=6).fit(
        Classifier(), loader(), loader(16)
    )
    steps = [step for step, _ in kept.rows]
    assert steps == sorted(steps)
    assert all({"epoch", "samples"} <= row.keys() for _, row in kept.rows)
    train = [step for step, row in kept.rows if "train_loss" in row]
    assert train == [4, 9, 14, 19, 24, 29, 34]


def test_a_metric_object_equals_its_own_compute_and_starts_empty_each_epoch() -> None:
    class Measured(Classifier):
        def __init__(self) -> None:
            super().__init__(lr=0.0)
            self.accuracy = torchmetrics.classification.MulticlassAccuracy(10, average="micro")
            self.seen: list[float] = []

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.accuracy.update(self(batch[0]), batch[1])
            self.log("accuracy", self.accuracy)

        def on_validation_epoch_end(self) -> None:
            self.seen.append(float(self.trainer.callback_metrics["accuracy"]))

    module = Measured()
    trainer(max_epochs=3, num_sanity_val_steps=0).fit(module, loader(), loader(90))
    images, labels = digits(90)
    expected = (module(images).argmax(1) == labels).float().mean().item()
    assert module.seen == pytest.approx([expected] * 3, abs=1e-7)


def test_several_loaders_get_one_documented_name_each() -> None:
    module, run = Classifier(), trainer()
    first, second = run.validate(module, [loader(16), loader(32)], verbose=False)
    assert first.keys() == {"val_loss/dataloader_idx_0"}
    images, labels = digits(32)
    assert second["val_loss/dataloader_idx_1"] == pytest.approx(
        cross_entropy(module(images).double(), labels).item(), abs=1e-7
    )


@pytest.mark.parametrize(
    ("where", "call", "says"),
    [
        ("training_step", ("x", torch.zeros(3)), r"a Tensor of shape \[3\]"),
        ("training_step", ("x", "text"), "got str"),
        ("on_train_epoch_end", ("x", 1.0, False, None, True), "there is no step"),
        ("on_fit_start", ("x", 1.0), "outside the hooks of a loop"),
    ],
)
def test_log_where_it_cannot_work_says_so(where: str, call: Any, says: str) -> None:
    def hook(self: Any, *args: Any) -> Any:
        self.log(*call)
        return cross_entropy(self(args[0][0]), args[0][1])

    wrong = type("Wrong", (Classifier,), {where: hook})
    with pytest.raises(ConfigError, match=says):
        trainer().fit(wrong(), loader())


def test_callbacks_see_the_validation_just_run_and_the_epoch_just_ended() -> None:
    seen: list[tuple[str, float]] = []

    class Look(renshu.Callback):
        monitor = "val_loss"

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            seen.append(("validation", float(trainer.callback_metrics["val_loss"])))

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            seen.append(("epoch", float(trainer.callback_metrics["mean"])))

    class Means(Classifier):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.log("mean", float(self.current_epoch), on_epoch=True, on_step=False)
            return super().training_step(batch, batch_idx)

    module = Means()
    run = trainer(max_epochs=2, callbacks=[Look()], num_sanity_val_steps=0)
    run.fit(module, loader(), loader(32))
    assert [name for name, _ in seen] == ["validation", "epoch"] * 2
    assert [value for name, value in seen if name == "epoch"] == [0.0, 1.0]
    images, labels = digits(32)
    assert seen[2][1] == pytest.approx(cross_entropy(module(images), labels).item(), abs=1e-6)


# pains/trainer.md row 31
def test_one_metric_object_in_training_and_validation_is_refused() -> None:
    class Mixed(Classifier):
        def __init__(self) -> None:
            super().__init__()
            self.accuracy = torchmetrics.classification.MulticlassAccuracy(10)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            scores = self(batch[0])
            self.accuracy(scores, batch[1])
            self.log("train_accuracy", self.accuracy)
            return torch.nn.functional.cross_entropy(scores, batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.accuracy(self(batch[0]), batch[1])
            self.log("val_accuracy", self.accuracy)

    for sanity in (0, 2):
        with pytest.raises(ConfigError, match=r"both log(.|\n)*clone"):
            trainer(num_sanity_val_steps=sanity).fit(Mixed(), loader(16), loader(16))
    # A later stage alone may use it.
    module = Mixed()
    trainer().validate(module, loader(16), verbose=False)
