"""The classifier: what is written here replaces the task's own."""

from typing import Any

import torch
from renshu_tasks.image_classification.data import ImageData
from renshu_tasks.image_classification.module import ImageClassifier
from renshu_tasks.image_classification.options import ModelOptions as ModelOptions
from renshu_tasks.image_classification.options import TrainingOptions as TrainingOptions
from torch import Tensor
from torch.nn.functional import cross_entropy


class Classifier(ImageClassifier):
    """A network whose probabilities are calibrated; the base class augments and decides.

    `self.model` is the network that `model.name` names; put any module from normalised images
    [B, C, H, W] to logits [B, K] in its place.
    """

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Image float32 [B, C, H, W], augmented, and target [B] or [B, K] → 0-dim loss."""
        loss = self.loss(self(batch["image"]), batch["target"])
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits [B, K] and target [B] or [B, K] → 0-dim loss."""
        if self.multi_label:
            return super().loss(logits, target)
        smoothing = self.training_options.label_smoothing
        return cross_entropy(logits, target, self.class_weights, label_smoothing=smoothing)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, whose rate rises over `training.warmup` of the steps and then falls to 0."""
        options = self.training_options
        optimizer = torch.optim.AdamW(self.parameters(), weight_decay=options.weight_decay)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=options.learning_rate or 1e-3,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=options.warmup,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def build(data: ImageData, model: ModelOptions, training: TrainingOptions) -> Classifier:
    """The classifier for these pictures."""
    balanced = training.class_weights == "balanced"
    return Classifier(
        data.classes,
        channels=data.channels,
        image_size=data.image_size,
        mean=data.mean,
        std=data.std,
        multi_label=data.multi_label,
        class_weights=data.class_weights().tolist() if balanced else None,
        model=model,
        training=training,
    )
