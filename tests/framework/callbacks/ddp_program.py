"""Trains digits with each callback, in one process or two: `ddp_program.py OUT BATCH OPTIONS`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from renshu import Module, Trainer, callbacks

torch.set_num_threads(1)

CALLBACKS: dict[str, Any] = {
    "finetuning": lambda: callbacks.BackboneFinetuning(1, lambda epoch: 2.0),
    "accumulation": lambda: callbacks.GradientAccumulationScheduler({1: 3}),
    "swa": lambda: callbacks.StochasticWeightAveraging(0.05, 2),
    "averaging": callbacks.WeightAveraging,
    "pruning": lambda: callbacks.ModelPruning("l1_unstructured", amount=0.2),
}


class Net(Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(64, 16), nn.Tanh())
        self.head = nn.Linear(16, 10)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return cross_entropy(self.head(self.backbone(batch[0])), batch[1])

    def configure_optimizers(self) -> Any:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.SGD(parameters, lr=0.2, momentum=0.5)


def fit(case: str, data: TensorDataset, batch: int, options: dict[str, Any], **how: Any) -> Any:
    module = Net()
    trainer = Trainer(
        accelerator="cpu", seed=1, callbacks=[CALLBACKS[case]()], logger=False, run=case,
        enable_progress_bar=False, enable_model_summary=False, **options,
    )  # fmt: skip
    trainer.fit(module, DataLoader(data, batch, shuffle=True), **how)
    return {name: value.tolist() for name, value in module.state_dict().items()}


def main(out: str, batch: int, options: dict[str, Any]) -> None:
    x, y = map(torch.tensor, load_digits(return_X_y=True))
    data = TensorDataset(x[:240].float() / 16, y[:240])
    found = {case: fit(case, data, batch, {"max_epochs": 4, **options}) for case in CALLBACKS}
    half = {"max_epochs": 2, "default_root_dir": "resumed", **options}
    fit("finetuning", data, batch, half)
    whole = half | {"max_epochs": 4}
    found["finetuning, resumed"] = fit("finetuning", data, batch, whole, ckpt_path="last")
    if os.environ.get("RANK", "0") == "0":
        Path(f"{out}.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))
