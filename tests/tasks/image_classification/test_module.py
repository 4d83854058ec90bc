"""The classifier in the real Trainer, on real digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from renshu.callbacks.callback import Callback
from renshu.trainer import Trainer
from renshu_tasks.image_classification import module as parts
from renshu_tasks.image_classification.data import ImageData
from renshu_tasks.image_classification.module import ImageClassifier, WarmupCosine
from renshu_tasks.image_classification.options import (
    ImageClassificationOptions,
    ModelOptions,
    TrainingOptions,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*not measured.*")


def some_digits(digits: tuple, rows: int = 120, **options: Any) -> ImageData:
    images, labels = digits
    return ImageData.from_arrays(images[:rows], labels[:rows], **options)


def build(data: ImageData, width: int = 8, **training: Any) -> ImageClassifier:
    chosen = {"ema_decay": 0.0} | training
    options = ImageClassificationOptions(
        model=ModelOptions(width=width), training=TrainingOptions(**chosen)
    )
    torch.manual_seed(0)
    return parts.build(options, data)


def fit(module: ImageClassifier, data: ImageData, epochs: int, **arguments: Any) -> Trainer:
    chosen: dict[str, Any] = {
        "accelerator": "cpu",
        "max_epochs": epochs,
        "seed": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    ckpt_path = arguments.pop("ckpt_path", None)
    trainer = Trainer(**chosen | arguments)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def batch_of(data: ImageData, part: str) -> dict[str, torch.Tensor]:
    return next(iter(getattr(data, f"{part}_dataloader")()))


def test_it_learns_32_digits_by_heart(digits: tuple) -> None:
    data = some_digits(digits, batch_size=32)
    module = build(data, augment="none", label_smoothing=0.0)
    batches = [batch_of(data, "train")]
    trainer = Trainer(accelerator="cpu", max_epochs=1, barebones=True)
    trainer.fit(module, batches * 60, batches)
    assert len(batches[0]["label"]) == 32
    assert trainer.callback_metrics["val_accuracy"] == 1
    assert trainer.callback_metrics["val_loss"] < 0.05


def test_weights_and_smoothing_are_those_of_torch(digits: tuple) -> None:
    data = some_digits(digits)
    module = build(data, class_weights="balanced", label_smoothing=0.2)
    logits, labels = torch.randn(16, 10), torch.arange(16) % 10
    counts = torch.bincount(data.labels[torch.as_tensor(data.parts["train"])], minlength=10)
    weights = counts.sum() / (10 * counts)
    peer = torch.nn.CrossEntropyLoss(weight=weights.float(), label_smoothing=0.2)
    assert torch.allclose(module.loss(logits, labels), peer(logits, labels))
    plain = build(data, label_smoothing=0.0)
    assert torch.equal(plain.loss(logits, labels), F.cross_entropy(logits, labels))


def test_several_labels_use_the_binary_loss_and_learn(digits: tuple) -> None:
    images, labels = digits
    several = [[str(int(y) % 2), *(["big"] if int(y) > 4 else [])] for y in labels[:300]]
    data = ImageData.from_arrays(images[:300], several, multi_label=True, test_share=0.2)
    module = build(data, class_weights="balanced", label_smoothing=0.1)
    logits, target = torch.randn(6, 3), torch.bernoulli(torch.full((6, 3), 0.5))
    peer = torch.nn.BCEWithLogitsLoss(pos_weight=data.class_weights())
    assert torch.allclose(module.loss(logits, target), peer(logits, target * 0.9 + 0.05))
    trainer = fit(module, data, 5)
    assert trainer.callback_metrics["val_accuracy"] > 0.85


def test_training_augments_and_evaluation_does_not(digits: tuple) -> None:
    data = some_digits(digits)
    module = build(data)
    batch = batch_of(data, "train")
    expected = (batch["image"].float() / 255 - data.mean[0]) / data.std[0]
    module.eval()
    assert torch.allclose(module.on_after_batch_transfer(batch)["image"], expected, atol=1e-5)
    module.train()
    assert not torch.allclose(module.on_after_batch_transfer(batch)["image"], expected, atol=0.1)


@pytest.mark.parametrize("mixing", [{"mixup": 0.2}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}])
def test_mixing_gives_soft_targets_and_trains(digits: tuple, mixing: dict[str, float]) -> None:
    data = some_digits(digits)
    module = build(data, **mixing)
    target = module.on_after_batch_transfer(batch_of(data, "train"))["target"]
    assert target.shape == (len(target), 10)
    assert torch.allclose(target.sum(1), torch.ones(len(target)), atol=1e-5)
    fit(module, data, 1)


def test_the_rate_rises_linearly_then_falls_as_a_cosine() -> None:
    schedule = WarmupCosine(steps=110, warmup=10 / 110)
    found = [schedule(step) for step in range(111)]
    assert found[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert found[10:] == pytest.approx([(1 + np.cos(np.pi * i / 100)) / 2 for i in range(101)])


def test_stages_wake_up_at_their_epochs_in_the_trainer(digits: tuple) -> None:
    data = some_digits(digits)
    module = build(data, tune="staged", unfreeze_every=1)
    start = {name: p.detach().clone() for name, p in module.model.named_parameters()}
    statistics = module.model.stem[0][1].running_mean.clone()
    fit(module, data, 2)
    moved = {
        name.split(".")[0] + "." + name.split(".")[1]
        for name, p in module.model.named_parameters()
        if not torch.equal(p, start[name])
    }
    assert moved == {"head.weight", "head.bias", "blocks.1"}
    assert torch.equal(module.model.stem[0][1].running_mean, statistics)


@pytest.mark.parametrize("stop", [3, 7, 8])
def test_a_resume_across_a_change_of_stage_is_bit_exact(digits: tuple, stop: int) -> None:
    """Epochs of four steps, a new stage every epoch; stopped inside an epoch and at its end."""
    data = some_digits(digits, batch_size=16, test_share=0.2)
    assert len(data.train_dataloader()) in (5, 6)
    settings: dict[str, Any] = {"tune": "staged", "layer_decay": 0.8}
    whole = build(data, **settings)
    fit(whole, data, 3)
    half = build(data, **settings)

    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == stop:
                trainer.save_checkpoint("half")
                trainer.wait_for_checkpoints()
                trainer.should_stop = True

    fit(half, data, 3, callbacks=[Stop()])
    resumed = build(data, **settings)
    fit(resumed, data, 3, ckpt_path="half")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_rebuilds_the_classifier(digits: tuple, tmp_path: Path) -> None:
    data = some_digits(digits)
    module = build(data)
    module.temperature.fill_(1.7)
    trainer = fit(module, data, 1)
    trainer.save_checkpoint("saved")
    trainer.wait_for_checkpoints()
    again = ImageClassifier.load_from_checkpoint("saved").eval()
    module.eval()
    image = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.probabilities(image), module.probabilities(image))
    assert again.classes == module.classes and float(again.temperature) == pytest.approx(1.7)


def test_predictions_of_the_trainer_are_calibrated_probabilities(digits: tuple) -> None:
    data = some_digits(digits)
    module = build(data)
    trainer = fit(module, data, 1)
    module.temperature.fill_(2.0)
    found = torch.cat(trainer.predict(module, datamodule=data))
    module.eval()
    batch = module.on_after_batch_transfer(batch_of(data, "predict"))
    expected = (module.logits(batch["image"]) / 2).softmax(1)
    assert torch.allclose(found[: len(expected)], expected, atol=1e-6)


def test_averaged_weights_are_kept_and_a_short_run_does_not_stick_to_its_start(
    digits: tuple,
) -> None:
    data = some_digits(digits)
    module = build(data)
    seen: list[torch.Tensor] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            seen.append(module.model.head.weight.detach().clone())

    ema = parts.callbacks(ImageClassificationOptions(training=TrainingOptions(ema_decay=0.9)))
    fit(module, data, 3, callbacks=[*ema, Watch()])
    expected = seen[0]
    for step, weights in enumerate(seen[1:], start=1):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights
    assert torch.allclose(module.model.head.weight, expected, atol=1e-6)
    assert parts.callbacks(ImageClassificationOptions(training=TrainingOptions(ema_decay=0))) == []


def test_pretrained_networks_learn_more_slowly_unless_told(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"channels": 3, "image_size": (32, 32), "mean": [0.5], "std": [0.5]}
    source = ImageClassifier(["a", "b"], model={"name": "resnet18"}, **shape)
    save_file(source.model.state_dict(), tmp_path / "w.safetensors")
    model = {"name": "resnet18", "weights": str(tmp_path / "w.safetensors")}
    tuned = ImageClassifier(["a", "b", "c"], model=model, **shape)
    given = ImageClassifier(["a"], model=model, training={"learning_rate": 0.5}, **shape)
    rates = [m.training_options.learning_rate for m in (source, tuned, given)]
    assert rates == [1e-3, 2e-4, 0.5]
    # a checkpoint rebuilds it without the file
    assert tuned.hparams.model["weights"] is None
    assert tuned.hparams.training["learning_rate"] == 2e-4


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_it_trains_in_other_precisions(digits: tuple, precision: str) -> None:
    data = some_digits(digits)
    trainer = fit(build(data), data, 1, precision=precision)
    assert trainer.callback_metrics["val_loss"].isfinite()
