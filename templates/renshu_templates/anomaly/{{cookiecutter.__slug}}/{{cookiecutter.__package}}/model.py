"""The detector: what is written here replaces the task's own."""

from typing import Any

import torch
from renshu_tasks.anomaly.data import SeriesData
from renshu_tasks.anomaly.module import AnomalyDetector
from renshu_tasks.anomaly.options import ModelOptions as ModelOptions
from renshu_tasks.anomaly.options import TrainingOptions as TrainingOptions
from torch import Tensor


class Detector(AnomalyDetector):
    """A detector with its threshold and p-values, which the base class chooses and keeps.

    `self.network` forecasts or rebuilds windows; it is None for detectors that are fitted in one
    step. Its `errors` [B, C] are the contributions of the channels to the score.
    """

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Windows float32 [B, C, L] → 0-dim loss; the base class fits all other detectors."""
        network = self.network
        if network is None or not self.automatic_optimization:
            return super().training_step(batch, batch_idx)
        loss = network.errors(batch[0]).mean()
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW, whose rate falls to 0 as a cosine; the base class knows all other detectors."""
        network = self.network
        if network is None or not self.automatic_optimization:
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def build(data: SeriesData, model: ModelOptions, training: TrainingOptions) -> Detector:
    """The detector for this series; a network's scaling is that of the training part."""
    options, series, parameters = data.options, data.series, model.parameters()
    if training.learning_rate is not None:
        parameters["learning_rate"] = training.learning_rate
    averaged = "grid" if options.period is None else "mean"
    counted = series.times is None or options.sampling == "rows"
    module = Detector(
        model.name,
        parameters,
        list(series.channels),
        period=series.period,
        time_column=options.time_column,
        sampling="rows" if counted else averaged,
        max_gap=options.max_gap,
        training=training,
    )
    if module.neural:
        detector: Any = module.detector
        detector.fit_scaling(data.train)
        data.detector = detector
    return module
