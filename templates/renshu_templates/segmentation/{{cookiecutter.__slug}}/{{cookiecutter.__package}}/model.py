"""The segmenter: what is written here replaces the task's own."""

from typing import Any

import torch
from renshu_tasks.segmentation.data import SegmentationData
from renshu_tasks.segmentation.models import parameter_groups
from renshu_tasks.segmentation.module import Segmenter
from renshu_tasks.segmentation.options import ModelOptions as ModelOptions
from renshu_tasks.segmentation.options import TrainingOptions as TrainingOptions
from torch import Tensor


class Segmentation(Segmenter):
    """A network with the plan of its data; the base class augments, and segments whole cases.

    `self.network` gives logits [B, K, *patch] from the finest level to coarser ones, a list; put any
    module that does so in its place.
    """

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Image float32 [B, C, *patch] and mask int64 [B, *patch], augmented → 0-dim loss."""
        loss = self.loss(self.network(batch["image"]), batch)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, whose rate rises over `training.warmup` of the steps and then falls to 0."""
        options = self.training_options
        groups = parameter_groups(self.network, options.weight_decay)
        optimizer = torch.optim.AdamW(groups)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=options.learning_rate or 3e-3,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=options.warmup,
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def build(data: SegmentationData, model: ModelOptions, training: TrainingOptions) -> Segmentation:
    """The segmenter for these cases."""
    segmenter = Segmentation(data.plan, training, weights=model.weights)
    segmenter.full_cases = data.full_cases
    return segmenter
