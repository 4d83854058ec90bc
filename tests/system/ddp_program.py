"""Trains on digits, in one process or several: `ddp_program.py OUT OPTIONS [OUT OPTIONS …]`.

OPTIONS is JSON: batch, what of {counted, noisy, manual, plateau, fails, strays, unused, frozen,
SIGTERM, SIGINT}, and options of the Trainer. Process 0 writes weights, logged values and
predictions to OUT.json; each process writes the threads it ends with to OUT.threads.RANK.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassF1Score

from renshu import Callback, Module, Trainer

torch.set_num_threads(1)


class Noisy(Dataset[Any]):
    """Pictures with noise: the same for a sample wherever it is read."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        return self.x[index] + 0.1 * torch.randn(64), self.y[index]


class Net(Module):
    def __init__(self, kind: list[str]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.counted, self.plateau = "counted" in kind, "plateau" in kind
        self.automatic_optimization = "manual" not in kind
        self.mean = MeanMetric()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        if "unused" in kind:
            self.idle = nn.Linear(64, 10).requires_grad_("frozen" not in kind)
        self.f1 = MulticlassF1Score(10, average="macro")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        losses = nn.functional.cross_entropy(self.net(x), y, reduction="none")
        self.log("train_loss", losses.mean(), on_step=True, on_epoch=True)
        if self.counted:  # as if only some samples had a label
            kept = y < 7
            return {"loss_sum": (losses * kept).sum(), "num_items": kept.sum()}
        if not self.automatic_optimization:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            # Two backward passes a step: their gradients are added.
            self.manual_backward(losses.mean() * 0.25, retain_graph=True)
            self.manual_backward(losses.mean() * 0.75)
            optimizer.step()
        return losses.mean()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        scores = self.net(batch[0])
        self.f1(scores, batch[1])
        self.log("val_f1", self.f1, on_epoch=True)
        self.mean.update(scores.max(1).values)  # in place
        self.log("val_mean", self.mean, on_epoch=True)
        self.log("val_loss", nn.functional.cross_entropy(scores, batch[1]))
        self.log("val_count", float(len(batch[0])), reduce_fx="sum")
        self.log("val_highest", scores.max(), reduce_fx="max")

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        return self.net(batch[0]).argmax(1)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.5)
        if not self.plateau:
            return optimizer
        # Each process logs another loss; all have to come to one rate.
        plateau = ReduceLROnPlateau(optimizer, patience=0, threshold=0.5)
        watched = {"scheduler": plateau, "monitor": "train_loss_step", "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": watched}


class Trouble(Callback):
    """At the seventh batch of the second process: an error, a signal, or it saves alone."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        if self.kind == "strays" and trainer.strategy.rank == 1:
            trainer.save_checkpoint("stray")

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.kind == "strays":
            return
        if trainer.progress.batches == 7 and trainer.strategy.rank == 1:
            if self.kind == "fails":
                raise ValueError("the second process fails")
            os.kill(os.getpid(), signal.SIGTERM if self.kind == "SIGTERM" else signal.SIGINT)


def note_threads(out: str) -> None:
    names = [path.read_text("utf-8") for path in Path("/proc/self/task").glob("*/comm")]
    Path(f"{out}.threads.{os.environ.get('RANK')}").write_text("".join(names), encoding="utf-8")


def main(out: str, options: dict[str, Any]) -> None:
    global trainer  # alive at the end, as in a script
    x, y = map(torch.tensor, load_digits(return_X_y=True))
    x = x.float() / 16
    batch, kind = options.pop("batch"), options.pop("what", [])
    data = Noisy if "noisy" in kind else TensorDataset
    trouble = [Trouble(word) for word in kind if word in ("fails", "strays", "SIGTERM", "SIGINT")]
    path = options.pop("ckpt_path", None)
    trainer = Trainer(
        accelerator="cpu", seed=1, log_every_n_steps=5, enable_progress_bar=False,
        callbacks=trouble, **options,
    )  # fmt: skip
    module = Net(kind)
    trainer.fit(
        module,
        DataLoader(data(x[:501], y[:501]), batch, shuffle=True, num_workers=2 * ("noisy" in kind)),
        DataLoader(TensorDataset(x[501:800], y[501:800]), 7),
        ckpt_path=path,
    )
    if trainer.interrupted:
        return
    weights = [parameter.tolist() for parameter in module.parameters()]
    assert all(other == weights for other in trainer.strategy.gather(weights, "the weights"))
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    tested = trainer.validate(module, DataLoader(TensorDataset(x[800:813], y[800:813]), 4))
    predicted = trainer.predict(module, DataLoader(TensorDataset(x[:23], y[:23]), 4))
    if trainer.is_global_zero:
        weights = {name: value.tolist() for name, value in module.state_dict().items()}
        found = {
            "weights": weights,
            "values": values,
            "tested": tested,
            "predicted": [some.tolist() for some in predicted],
            "samples": trainer.progress.samples,
        }
        Path(f"{out}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    atexit.register(note_threads, sys.argv[1])
    for name, chosen in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        main(name, json.loads(chosen))
