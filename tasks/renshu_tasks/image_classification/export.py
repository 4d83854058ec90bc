"""Trained classifiers as ONNX: pictures as they are read go in, logits and probabilities come out.

A saved `torch.export` program is not offered: torch's loader of it falls back to pickle.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renshu.cli.export_onnx import write_onnx
from renshu.task import Case, Exported

if TYPE_CHECKING:
    from renshu_tasks.image_classification.data import ImageData
    from renshu_tasks.image_classification.module import ImageClassifier

UNSEEN = (1, 3, 17)
"""Batch sizes that the exported model is tried with; none is that of the example."""


class _Pictures(nn.Module):
    """uint8 pictures [B, C, H, W] → logits and calibrated probabilities, float32 [B, K] each."""

    def __init__(self, classifier: ImageClassifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        logits = self.classifier.logits(self.classifier.normalise(image))
        return {"logits": logits, "probabilities": self.classifier.scale(logits)}


def to_onnx(module: ImageClassifier, data: ImageData, folder: Path) -> Exported:
    """Write model.onnx for any number of pictures, and model.json with what else it takes."""
    model = _Pictures(module).eval()
    write_onnx(model, {"image": _random(module, 2)}, {"image": {0: "batch"}}, folder)
    about = {
        "classes": module.classes,
        "multi_label": module.multi_label,
        "thresholds": module.thresholds.tolist(),
        "temperature": float(module.temperature),
        "input": {
            "name": "image",
            "dtype": "uint8",
            "shape": ["batch", *_random(module, 1).shape[1:]],
        },
    }
    (folder / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    labels: list[Tensor] = []

    def cases() -> Iterator[Case]:
        for size in UNSEEN:
            yield _case(module, f"batch-{size}", _random(module, size))
        for number, batch in enumerate(_evaluated(data)):
            labels.append(batch["label"])
            yield _case(module, f"evaluated-{number:06d}", batch["image"], evaluation=True)

    def metric(outputs: Iterator[Any]) -> dict[str, float]:
        decided = [module.decide(torch.from_numpy(out["probabilities"])) for out in outputs]
        right = torch.cat(decided) == torch.cat(labels)
        return {"accuracy": right.double().mean().item()}

    return Exported(cases(), metric)


def _random(module: ImageClassifier, size: int) -> Tensor:
    """Pictures of noise, uint8 [size, C, H, W]."""
    shape = (size, module.hparams.channels, *module.hparams.image_size)
    generator = torch.Generator().manual_seed(size)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def _evaluated(data: ImageData) -> Any:
    """Batches of the test part, or of the validation part where there is none."""
    split = "test" if len(data.parts["test"]) else "val"
    data.setup("test" if split == "test" else "validate")
    return data.test_dataloader() if split == "test" else data.val_dataloader()


@torch.no_grad()
def _case(module: ImageClassifier, name: str, image: Tensor, *, evaluation: bool = False) -> Case:
    logits = module.logits(module.normalise(image))
    outputs = {"logits": logits.numpy(), "probabilities": module.scale(logits).numpy()}
    return Case(name, {"image": image.numpy()}, outputs, evaluation=evaluation)
