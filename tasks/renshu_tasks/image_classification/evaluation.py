"""After training: choose on the validation part, measure a part once, write what was found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from renshu.cli.table import TableWriter
from renshu_tasks.common import calibration
from renshu_tasks.common.files import write_json
from renshu_tasks.image_classification import augment, gradcam, metrics, models

if TYPE_CHECKING:
    from renshu_tasks.image_classification.data import ImageData
    from renshu_tasks.image_classification.module import ImageClassifier
    from renshu_tasks.image_classification.pictures import Pictures

WORST = 24
"""How many pictures with the highest loss are kept."""

_SIDE = 96
"""Smaller pictures are enlarged to at least this side, in whole steps, to be looked at."""


@dataclass(frozen=True)
class Outcome:
    """What the model said about one part, in the loader's order.

    Attributes:
        logits: float32 [N, K], before the temperature.
        labels: int64 [N], or float32 [N, K] when there may be several.
        index: int64 [N], the samples' rows in the source.
    """

    logits: Tensor
    labels: Tensor
    index: Tensor


@torch.no_grad()
def collect(module: ImageClassifier, batches: Iterable[dict[str, Tensor]]) -> Outcome:
    """Run the model over labelled batches; its mode is put back."""
    mode = module.training
    module.eval()
    logits, labels, index = [], [], []
    for batch in batches:
        ready = module.on_after_batch_transfer(to_device(batch, module.device), 0)
        logits.append(module.logits(ready["image"]).float().cpu())
        labels.append(batch["label"].cpu())
        index.append(batch["index"].cpu())
    module.train(mode)
    return Outcome(torch.cat(logits), torch.cat(labels), torch.cat(index))


def to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """The batch's tensors on `device`."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def calibrate(module: ImageClassifier, data: ImageData) -> None:
    """Choose temperature and thresholds on the validation part; both are buffers of the module."""
    options = module.training_options
    data.setup("validate")
    outcome = collect(module, data.val_dataloader())
    if options.calibrate:
        module.temperature.fill_(calibration.fit_temperature(outcome.logits, outcome.labels))
    if not module.multi_label and len(module.classes) > 2:
        return
    if not isinstance(options.threshold, str):
        module.thresholds.fill_(options.threshold)
        return
    scores = module.scale(outcome.logits.to(module.device)).cpu()
    module.thresholds.copy_(calibration.best_thresholds(scores, outcome.labels))


def evaluate(module: ImageClassifier, data: ImageData, split: str, run_dir: Path) -> dict[str, Any]:
    """Measure one part, "val" or "test"; write `run_dir`/evaluation/<split>/; return the figures.

    Writes metrics.json, confusion.json (one label a picture), predictions.csv, arrays.safetensors
    (probabilities, logits, labels), worst.json and the pictures in worst/.
    """
    from safetensors.torch import save_file

    data.setup("test" if split == "test" else "validate")
    outcome = collect(module, data.test_dataloader() if split == "test" else data.val_dataloader())
    probabilities = module.scale(outcome.logits.to(module.device))
    predicted, probabilities = module.decide(probabilities).cpu(), probabilities.cpu()
    figures: dict[str, Any] = {
        "classes": module.classes,
        "temperature": float(module.temperature),
        "thresholds": module.thresholds.tolist(),
        **metrics.evaluate(
            probabilities, outcome.labels, predicted, module.classes, _groups(data, outcome)
        ),
    }
    folder = Path(run_dir) / "evaluation" / split
    folder.mkdir(parents=True, exist_ok=True)
    if not module.multi_label:
        counts = metrics.confusion_matrix(outcome.labels, predicted, len(module.classes))
        write_json(folder / "confusion.json", {"classes": module.classes, "rows": counts.tolist()})
    ids = [data.records.ids[row] for row in outcome.index.tolist()]
    rows = prediction_rows(module, ids, probabilities, predicted, outcome.labels)
    with TableWriter(folder / "predictions.csv") as table:
        for row in rows:
            table.write(row)
    arrays = {
        "probabilities": probabilities.contiguous(),
        "logits": outcome.logits,
        "labels": outcome.labels,
    }
    save_file(arrays, folder / "arrays.safetensors")
    write_worst(module, data.dataset(split), ids, outcome, probabilities, predicted, folder)
    write_json(folder / "metrics.json", figures)
    return figures


def _groups(data: ImageData, outcome: Outcome) -> Tensor | None:
    """int64 [N]: the group (patient, video) of each sample, if the data have groups."""
    if data.records.groups is None:
        return None
    numbers = {name: number for number, name in enumerate(dict.fromkeys(data.records.groups))}
    return torch.tensor([numbers[data.records.groups[row]] for row in outcome.index.tolist()])


def names(module: ImageClassifier, decision: Tensor) -> str:
    """A decision, or a label, in words: class names, joined by "|" when there are several."""
    if decision.ndim:
        return "|".join(module.classes[k] for k in decision.nonzero()[:, 0].tolist())
    return module.classes[int(decision)]


def prediction_rows(
    module: ImageClassifier,
    ids: list[str],
    probabilities: Tensor,
    predicted: Tensor,
    labels: Tensor,
) -> Iterator[dict[str, Any]]:
    """Rows of predictions.csv: id, label, predicted, confidence, a probability for each class."""
    confidence, _ = metrics.confidences(probabilities, labels, predicted)
    sure = confidence if confidence.ndim == 1 else confidence.min(1).values
    for i, name in enumerate(ids):
        yield {
            "id": name,
            "label": names(module, labels[i]),
            "predicted": names(module, predicted[i]),
            "confidence": round(float(sure[i]), 6),
        } | probability_columns(module, probabilities[i])


def probability_columns(module: ImageClassifier, row: Tensor) -> dict[str, float]:
    """Probabilities [K] under the columns `p_<class>`."""
    return {
        f"p_{name}": round(value, 6)
        for name, value in zip(module.classes, row.tolist(), strict=True)
    }


def write_worst(
    module: ImageClassifier,
    pictures: Pictures,
    ids: list[str],
    outcome: Outcome,
    probabilities: Tensor,
    predicted: Tensor,
    folder: Path,
) -> None:
    """The pictures with the highest loss, each with its Grad-CAM; worst.json lists them."""
    losses = metrics.losses(probabilities, outcome.labels)
    places = losses.argsort(descending=True, stable=True)[:WORST].tolist()
    confidence, _ = metrics.confidences(probabilities, outcome.labels, predicted)
    (folder / "worst").mkdir(exist_ok=True)
    rows = []
    for number, place in enumerate(places):
        image = pictures.image(place)
        row = {
            "id": ids[place],
            "true": names(module, outcome.labels[place]),
            "predicted": names(module, predicted[place]),
            "confidence": float(confidence[place].min()),
            "loss": float(losses[place]),
            "image": f"{number:02d}.png",
        }
        write_png(folder / "worst" / row["image"], enlarge(image.float() / 255))
        target = predicted[place] if predicted.ndim == 1 else probabilities[place].argmax()
        overlay = explain(module, image, target)
        if overlay is not None:
            row["overlay"] = f"{number:02d}_cam.png"
            write_png(folder / "worst" / row["overlay"], overlay)
        rows.append(row)
    write_json(folder / "worst.json", rows)


def explain(module: ImageClassifier, image: Tensor, target: Tensor) -> Tensor | None:
    """Grad-CAM laid over a picture.

    Args:
        module: in evaluation mode.
        image: uint8 [C, H, W].
        target: int64 [], the class to explain.

    Returns:
        float32 [3, h, w] in [0, 1], enlarged; None if the network has no feature maps.
    """
    layer = models.cam_layer(module.model)
    if layer is None:
        return None
    mode = module.training
    module.eval()
    ready = module.normalise(image[None].to(module.device))
    heat = gradcam.grad_cam(module.model, layer, ready, target.to(module.device)[None]).cpu()
    module.train(mode)
    picture = enlarge(augment.to_float(image)).mean(0, keepdim=True)
    heat = torch.nn.functional.interpolate(heat[None].float(), picture.shape[1:], mode="bilinear")
    heat = heat[0] / heat.max().clamp(min=1e-12)
    colour = torch.cat([heat, heat * (1 - heat) * 2, 1 - heat])  # blue is nothing, red is most
    return 0.55 * picture + 0.45 * colour


def enlarge(image: Tensor) -> Tensor:
    """Float [C, H, W] repeated in whole steps until the smaller side has at least _SIDE pixels."""
    times = -(-_SIDE // min(image.shape[-2:]))
    return image.repeat_interleave(times, dim=-2).repeat_interleave(times, dim=-1)


def write_png(file: Path, image: Tensor) -> None:
    """Float [1 or 3, H, W] in [0, 1] as a PNG."""
    from PIL import Image

    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file)
