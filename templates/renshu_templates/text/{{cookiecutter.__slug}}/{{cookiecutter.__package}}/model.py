"""The language model: what is written here replaces the task's own."""

from typing import Any

import torch
from renshu_tasks.text import models
from renshu_tasks.text.data import TextData
from renshu_tasks.text.module import TextModel
from renshu_tasks.text.options import ModelOptions as ModelOptions
from renshu_tasks.text.options import TrainingOptions as TrainingOptions
from torch import Tensor
from torch.nn.functional import cross_entropy


class Classifier(TextModel):
    """A pretrained network with its tokenizer; the base class calibrates, decides and is saved.

    `self.model` is the network of transformers, and calling this module with a batch gives logits
    [B, K].
    """

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Any:
        """→ 0-dim loss; the base class knows the losses of other heads than one label a text."""
        if self.head != "classification" or self.multi_label:
            return super().training_step(batch, batch_idx)
        smoothing = self.training_options.label_smoothing
        loss = cross_entropy(
            self(batch), batch["label"], self.class_weights, label_smoothing=smoothing
        )
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, whose rate rises over `training.warmup` of the steps and then falls to 0."""
        options = self.training_options
        groups = models.parameter_groups(self.model, options)
        optimizer = torch.optim.AdamW(groups)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=options.warmup,
            anneal_strategy="linear",
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def build(data: TextData, model: ModelOptions, training: TrainingOptions) -> Classifier:
    """The pretrained model with a new head for these labels."""
    encoder, padding = data.encoder, data.encoder.tokenizer.pad_token_id
    configuration = models.load_config(model)
    network: Any = models.load(model, training, configuration, data.classes, padding)
    balanced = training.class_weights == "balanced"
    classifier = Classifier(
        network.config.to_dict(),
        encoder.max_length,
        data.classes,
        multi_label=data.options.multi_label,
        class_weights=data.class_weights() if balanced else None,
        scale=data.scale(),
        model=model,
        training=training,
        network=network,
        encoder=encoder,
    )
    if training.tune == "head":
        data.use_features(classifier)
    return classifier
