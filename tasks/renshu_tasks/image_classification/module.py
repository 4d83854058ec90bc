"""The classifier as a Module: loss, augmentation, optimiser, decisions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from renshu.callbacks.callback import Callback
from renshu.errors import ConfigError
from renshu.module import Module
from renshu_tasks.common.ema import averaged
from renshu_tasks.image_classification import augment, finetune, models
from renshu_tasks.image_classification.options import (
    ImageClassificationOptions,
    ModelOptions,
    TrainingOptions,
)

if TYPE_CHECKING:
    from renshu_tasks.image_classification.data import ImageData

Batch = dict[str, Tensor]


class ImageClassifier(Module):
    """A network with everything that belongs to its decisions, for one or several labels a picture.

    Batches hold "image" uint8 [B, C, H, W] and "label", int64 [B] or float [B, K] with 0 and 1 when
    there may be several; in training also "seed", int64 [B].

    Args:
        classes: the K names, in the order of the logits.
        channels: of the pictures.
        image_size: (height, width) in pixels.
        mean: of each channel, in [0, 1].
        std: of each channel.
        multi_label: a picture may have several labels.
        class_weights: weight of each class in the loss; for several labels, of its positives.
        model: which network; a dict is what a checkpoint holds.
        training: how it learns.
    """

    mean: Tensor
    std: Tensor
    temperature: Tensor
    thresholds: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        classes: Sequence[str],
        *,
        channels: int,
        image_size: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        multi_label: bool = False,
        class_weights: Sequence[float] | None = None,
        model: ModelOptions | Mapping[str, Any] | None = None,
        training: TrainingOptions | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        net = model if isinstance(model, ModelOptions) else ModelOptions(**model or {})
        if not isinstance(training, TrainingOptions):
            training = TrainingOptions(**training or {})
        if training.learning_rate is None:
            training = dataclasses.replace(training, learning_rate=_usual_rate(net))
        self.training_options = training
        self.classes = list(classes)
        self.multi_label = multi_label
        self.model = models.build_model(
            net.name,
            channels=channels,
            classes=len(classes),
            image_size=min(image_size),
            width=net.width,
            dropout=net.dropout,
            weights=net.weights,
        )
        self.level = _level(self.training_options, channels, max(image_size))
        if self.training_options.channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.views = _views(self.training_options, self.level)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        weights = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights", weights)
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("thresholds", torch.full((len(classes),), 0.5))
        self._frozen: list[torch.nn.Module] = []
        self.save_hyperparameters(
            {
                "classes": self.classes,
                "channels": channels,
                "image_size": list(image_size),
                "mean": list(mean),
                "std": list(std),
                "multi_label": multi_label,
                "class_weights": None if class_weights is None else list(class_weights),
                # The weights come out of the checkpoint then, not out of the pretrained file.
                "model": dataclasses.asdict(dataclasses.replace(net, weights=None)),
                "training": dataclasses.asdict(self.training_options),
            }
        )

    # --- from pictures to decisions ---------------------------------------------------------------

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] → logits [B, K]."""
        return self.model(image)

    def normalise(self, image: Tensor) -> Tensor:
        """uint8, or float in [0, 1], [B, C, H, W] → mean 0, deviation 1, the weights' dtype."""
        image = ((augment.to_float(image) - self.mean) / self.std).to(self.mean.dtype)
        if self.training_options.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        return image

    def logits(self, image: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] → logits [B, K] of the averaged views, before scaling."""
        if len(self.views) == 1:
            return self(image).float()
        batch, count = len(image), len(self.views)
        # Not repeat_interleave: in ONNX its number of repeats must be a constant.
        maps = self.views.to(image)[:, None].expand(-1, batch, -1, -1).flatten(0, 1)
        black = -self.mean / self.std  # outside lies what lay there in training
        seen = augment.warp((image - black).repeat(count, 1, 1, 1), maps, self.level.fill)
        outputs = self(seen + black).float().view(count, batch, -1)
        if self.multi_label:
            return torch.logit(outputs.sigmoid().mean(0), eps=1e-6)
        return outputs.log_softmax(-1).logsumexp(0) - math.log(count)

    def probabilities(self, image: Tensor) -> Tensor:
        """Normalised images [B, C, H, W] → calibrated probabilities [B, K]."""
        return self.scale(self.logits(image))

    def scale(self, logits: Tensor) -> Tensor:
        """Logits [B, K] → probabilities [B, K] at the temperature chosen on the validation part."""
        scaled = logits / self.temperature
        return scaled.sigmoid() if self.multi_label else scaled.softmax(-1)

    def decide(self, probabilities: Tensor) -> Tensor:
        """Probabilities [B, K] → class int64 [B], or bool [B, K] when there may be several."""
        if self.multi_label:
            return probabilities >= self.thresholds
        if len(self.classes) == 2:
            return (probabilities[:, 1] >= self.thresholds[1]).long()
        return probabilities.argmax(-1)

    # --- steps -----------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int = 0) -> Batch:
        """Augment (in training), normalise, and add "target": what the loss compares with."""
        image, target = augment.to_float(batch["image"]), batch.get("label")
        options = self.training_options
        if self.training:
            image = augment.augment(image, batch["seed"], self.level)
        image = self.normalise(image)
        if self.training and target is not None and (options.mixup or options.cutmix):
            if not self.multi_label:
                target = F.one_hot(target, len(self.classes)).float()
            image, target = augment.mix(image, target, batch["seed"], options.mixup, options.cutmix)
        return {**batch, "image": image} | ({} if target is None else {"target": target})

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits [B, K] and target [B] or [B, K] → mean loss, weighted and smoothed as trained."""
        smoothing = self.training_options.label_smoothing
        if self.multi_label:
            target = target * (1 - smoothing) + smoothing / 2
            return F.binary_cross_entropy_with_logits(logits, target, pos_weight=self.class_weights)
        return F.cross_entropy(logits, target, weight=self.class_weights, label_smoothing=smoothing)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """→ 0-dim loss."""
        loss = self.loss(self(batch["image"]), batch["target"])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_evaluation(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._log_evaluation(batch, "test")

    def _log_evaluation(self, batch: Batch, part: str) -> None:
        """Loss without weights and smoothing, and accuracy; one view, for speed."""
        logits, label = self(batch["image"]), batch["label"]
        if self.multi_label:
            loss = F.binary_cross_entropy_with_logits(logits, label)
            right = ((logits > 0) == label.bool()).float().mean()
        else:
            loss = F.cross_entropy(logits, label)
            right = (logits.argmax(-1) == label).float().mean()
        self.log(f"{part}_loss", loss, prog_bar=True)
        self.log(f"{part}_accuracy", right, prog_bar=True)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """→ calibrated probabilities [B, K]."""
        return self.probabilities(batch["image"])

    # --- what learns -----------------------------------------------------------------------------

    def on_train_start(self) -> None:
        self._switch()  # a resume inside an epoch has no start of the epoch

    def on_train_epoch_start(self) -> None:
        self._switch()

    def _switch(self) -> None:
        self._frozen = finetune.apply(self.model, self.training_options, self.current_epoch)
        finetune.keep_still(self._frozen if self.training else [])

    def train(self, mode: bool = True) -> ImageClassifier:
        super().train(mode)
        finetune.keep_still(self._frozen)
        return self

    def configure_optimizers(self) -> dict[str, Any]:
        options = self.training_options
        groups = finetune.parameter_groups(self.model, options)
        if options.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                groups,
                lr=1.0,
                momentum=0.9,
                nesterov=True,  # each group has its own rate
            )
        else:
            optimizer = torch.optim.AdamW(groups)
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ConfigError(
                "the learning rate falls until the last step, so that must be known",
                where="trainer",
                mend="--trainer.max_epochs or --trainer.max_steps",
            )
        schedule = WarmupCosine(int(steps), options.warmup)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class WarmupCosine:
    """Factor of the learning rate: linear up over a share of the steps, then a cosine down to 0.

    Loshchilov and Hutter 2017 (without restarts); warm-up as in Goyal et al. 2017.
    """

    def __init__(self, steps: int, warmup: float) -> None:
        self.steps = steps
        self.rise = max(1, round(steps * warmup))

    def __call__(self, step: int) -> float:
        if step < self.rise:
            return (step + 1) / self.rise
        done = (step - self.rise) / max(1, self.steps - self.rise)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _usual_rate(model: ModelOptions) -> float:
    """For AdamW: the small network's was chosen on the digits, the others are customary."""
    if model.name == "small":
        return 3e-3
    return 1e-3 if model.weights is None else 2e-4


def _level(options: TrainingOptions, channels: int, image_size: int) -> augment.Level:
    """The augmentation by name; auto looks at the pictures."""
    name = options.augment
    if name == "auto":
        small = "light" if image_size <= 64 else "standard"
        name = "characters" if channels == 1 and image_size <= 32 else small
    return augment.LEVELS[name]


def _views(options: TrainingOptions, level: augment.Level) -> Tensor:
    """Affine maps [V, 2, 3] of the views averaged when predicting; the first is as it is."""
    kind = options.tta
    if kind == "auto":
        kind = "affine" if level == augment.LEVELS["characters"] else "none"
    same = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    if kind == "none":
        return torch.tensor([same])
    if kind == "flip":
        return torch.tensor([same, [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    cos, sin, step = math.cos(math.radians(8)), math.sin(math.radians(8)), 0.06
    turns = [[[cos, -s, 0.0], [s, cos, 0.0]] for s in (sin, -sin)]
    steps = ((step, 0.0), (-step, 0.0), (0.0, step), (0.0, -step))
    return torch.tensor([same, *turns, *([[1.0, 0.0, x], [0.0, 1.0, y]] for x, y in steps)])


def build(options: ImageClassificationOptions, data: ImageData) -> ImageClassifier:
    """The classifier for the data at hand; see `renshu.task.Task`."""
    training = options.training
    if training.channels_last is None:
        training = dataclasses.replace(training, channels_last=data.defaults.channels_last)
    if threads := training.threads or data.defaults.threads:
        torch.set_num_threads(threads)
    balanced = training.class_weights == "balanced"
    classifier = ImageClassifier(
        data.classes,
        channels=data.channels,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        multi_label=data.multi_label,
        class_weights=data.class_weights().tolist() if balanced else None,
        model=options.model,
        training=training,
    )
    if data.defaults.compile if training.compile is None else training.compile:
        classifier.model.compile()
    return classifier


def callbacks(options: ImageClassificationOptions) -> list[Callback]:
    """Averaged weights, unless switched off."""
    return averaged(options.training.ema_decay)


def finish(module: ImageClassifier, data: ImageData, run_dir: Path) -> None:
    """After training: temperature and thresholds on validation, then the test part, once.

    Without a test part the validation part is measured, under its own name.
    """
    from renshu_tasks.image_classification import evaluation

    evaluation.calibrate(module, data)
    evaluation.evaluate(module, data, "test" if len(data.parts["test"]) else "val", run_dir)


def evaluate(module: ImageClassifier, data: ImageData, split: str, run_dir: Path) -> dict[str, Any]:
    """Measure a part and write what was found; used by `renshu evaluate`."""
    from renshu_tasks.image_classification import evaluation

    return evaluation.evaluate(module, data, split, run_dir)
