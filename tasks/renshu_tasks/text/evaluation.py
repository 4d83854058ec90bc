"""After training: choose on the validation part, measure a part once, write what was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renshu.cli.table import TableWriter
from renshu.data import move
from renshu_tasks.common import calibration
from renshu_tasks.common.coverage import risk_by_coverage
from renshu_tasks.common.files import write_json
from renshu_tasks.text import audit, metrics, normalise

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import Batch, TextModel

MISTAKES = 24
"""How many of the most confident mistakes are kept."""

EXAMPLES = 3
"""Texts kept for each class."""


@dataclass(frozen=True)
class Outcome:
    """What the model said about one part, in the order of the source.

    Attributes:
        logits: float32 [N, K], before the temperature; [N] for regression.
        labels: int64 [N], float32 [N, K] when there may be several, float32 [N] for regression.
        index: int64 [N], the texts' rows in the source.
    """

    logits: Tensor
    labels: Tensor
    index: Tensor


@torch.no_grad()
def batches(module: TextModel, loader: DataLoader[Any]) -> Iterator[Batch]:
    """The loader's batches on the module's device, with the module in evaluation mode."""
    mode = module.training
    module.eval()
    for batch in loader:
        yield move(batch, module.device)
    module.train(mode)


@torch.no_grad()
def collect(module: TextModel, loader: DataLoader[Any]) -> Outcome:
    """Run the model over labelled batches."""
    logits, labels, index = [], [], []
    for batch in batches(module, loader):
        logits.append(module.logits(batch).cpu())
        labels.append(batch["label"].cpu())
        index.append(batch["index"].cpu())
    order = torch.cat(index).argsort()
    return Outcome(*(torch.cat(some)[order] for some in (logits, labels, index)))


def calibrate(module: TextModel, data: TextData) -> None:
    """Choose temperature and thresholds on the validation part; both are buffers of the module."""
    options = module.training_options
    if module.head == "embedding" and module.classifier is not None:
        from renshu_tasks.text import vectors

        vectors.fit_classifier(module, data)
    if not module.classes or module.head == "tokens":
        return
    outcome = collect(module, data.val_dataloader())
    if options.calibrate:
        module.temperature.fill_(calibration.fit_temperature(outcome.logits, outcome.labels))
    if not module.multi_label and len(module.classes) > 2:
        return
    if not isinstance(options.threshold, str):
        module.thresholds.fill_(options.threshold)
        return
    scores = module.scaled(outcome.logits.to(module.device)).cpu()
    module.thresholds.copy_(calibration.best_thresholds(scores, outcome.labels))


def evaluate(module: TextModel, data: TextData, split: str, run_dir: Path) -> dict[str, Any]:
    """Measure one part, "val" or "test"; write `run_dir`/evaluation/<split>/; return the figures.

    metrics.json has the figures, predictions.csv a row a text; classes add confusion.json,
    arrays.safetensors (probabilities, logits, labels), mistakes.json and examples.json; causal
    models samples.json.
    """
    folder = Path(run_dir) / "evaluation" / split
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"head": module.head} | _MEASURES[module.head](module, data, split, folder)
    write_json(folder / "metrics.json", figures)
    return figures


def loader_of(data: TextData, split: str) -> DataLoader[Any]:
    """The batches of "val" or "test", in a fixed order."""
    return data.test_dataloader() if split == "test" else data.val_dataloader()


def _classify(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    from safetensors.torch import save_file

    outcome = collect(module, loader_of(data, split))
    probabilities = module.scaled(outcome.logits.to(module.device))
    predicted, probabilities = module.decide(probabilities).cpu(), probabilities.cpu()
    truth, chosen = outcome.labels.numpy(), predicted.numpy()
    hot = _hot(outcome.labels, module), _hot(predicted, module)
    confidence, right = confidences(probabilities, outcome.labels, predicted)
    groups = data.groups[outcome.index.numpy()]
    if module.multi_label:
        main = metrics.multi_label(hot[0], hot[1])
    else:
        main = metrics.classification(truth, chosen, len(module.classes))
        counts = np.bincount(truth * len(module.classes) + chosen, minlength=hot[0].shape[1] ** 2)
        rows = counts.reshape(hot[0].shape[1], -1).tolist()
        write_json(folder / "confusion.json", {"classes": module.classes, "rows": rows})
    figures = {
        "samples": len(truth),
        "classes": module.classes,
        "temperature": float(module.temperature),
        "thresholds": module.thresholds.tolist(),
        **metrics.bootstrap(main, groups),
        **metrics.bootstrap(metrics.calibration(confidence, right), groups),
        "coverage": risk_by_coverage(confidence, right),
        "per_class": metrics.per_class(*hot, module.classes),
    }
    with TableWriter(folder / "predictions.csv") as table:
        for place, row in enumerate(outcome.index.tolist()):
            table.write(
                {
                    "id": data.rows[row]["id"],
                    "label": names(module, outcome.labels[place]),
                    "predicted": names(module, predicted[place]),
                    "confidence": round(float(confidence[place]), 6),
                }
                | probability_columns(module, probabilities[place])
            )
    arrays = {"probabilities": probabilities.contiguous(), "logits": outcome.logits}
    save_file(arrays | {"labels": outcome.labels}, folder / "arrays.safetensors")
    _write_mistakes(module, data, outcome, predicted, confidence, right, folder)
    _write_examples(module, data, outcome, predicted, folder)
    return figures


def _hot(labels: Tensor, module: TextModel) -> np.ndarray:
    """Labels [N] or [N, K] → bool [N, K]."""
    if labels.ndim == 2:
        return labels.bool().numpy()
    return (torch.arange(len(module.classes)) == labels[:, None]).numpy()


def confidences(
    probabilities: Tensor, labels: Tensor, predicted: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Confidence in each text's decision, float64 [N], and whether it is right, bool [N].

    With several labels a text is as sure as its least sure decision, and right when all are.
    """
    if labels.ndim == 2:
        sure = torch.where(predicted, probabilities, 1 - probabilities).min(1).values
        return sure.double().numpy(), (predicted == labels.bool()).all(1).numpy()
    sure = probabilities.gather(1, predicted[:, None])[:, 0]
    return sure.double().numpy(), (predicted == labels).numpy()


def _regress(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    outcome = collect(module, loader_of(data, split))
    truth, found = outcome.labels.double().numpy(), outcome.logits.double().numpy()
    with TableWriter(folder / "predictions.csv") as table:
        for row, true, value in zip(outcome.index.tolist(), truth, found, strict=True):
            table.write({"id": data.rows[row]["id"], "value": true, "predicted": float(value)})
    worst = np.argsort(-np.abs(truth - found), kind="stable")[:MISTAKES]
    rows = [
        {
            "id": data.rows[int(outcome.index[i])]["id"],
            "text": shown(data, int(outcome.index[i])),
            "true": float(truth[i]),
            "predicted": float(found[i]),
        }
        for i in worst
    ]
    write_json(folder / "mistakes.json", rows)
    groups = data.groups[outcome.index.numpy()]
    return {
        "samples": len(truth),
        **metrics.bootstrap(metrics.regression(truth, found), groups),
        "baseline_mae": float(np.abs(truth - np.median(truth)).mean()),
    }


def _tag(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    from renshu_tasks.text import tagging

    return tagging.measure(module, data, split, folder)


def _continue(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    from renshu_tasks.text import generation

    return generation.measure(module, data, split, folder)


def _embed(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    from renshu_tasks.text import vectors

    if module.classifier is not None:
        return _classify(module, data, split, folder)
    return vectors.measure(module, data, split, folder)


_MEASURES = {
    "classification": _classify,
    "regression": _regress,
    "tokens": _tag,
    "causal": _continue,
    "embedding": _embed,
}


def names(module: TextModel, decision: Tensor) -> str:
    """A decision, or a label, in words: class names, joined by "|" when there are several."""
    if decision.ndim:
        return "|".join(module.classes[k] for k in decision.nonzero()[:, 0].tolist())
    return module.classes[int(decision)]


def probability_columns(module: TextModel, row: Tensor) -> dict[str, float]:
    """Probabilities [K] under the columns `p_<class>`."""
    return {
        f"p_{name}": round(value, 6)
        for name, value in zip(module.classes, row.tolist(), strict=True)
    }


def shown(data: TextData, row: int, length: int = 400) -> str:
    """A row's text for the report: private parts masked unless asked, and not endless."""
    text = data.text(row)
    text = normalise.mask(text) if data.options.mask_private else text
    return text if len(text) <= length else text[:length] + "…"


def _write_mistakes(
    module: TextModel,
    data: TextData,
    outcome: Outcome,
    predicted: Tensor,
    confidence: np.ndarray,
    right: np.ndarray,
    folder: Path,
) -> None:
    """The wrong decisions with the highest confidence, each with what it rests on."""
    from renshu_tasks.text.attribution import explain

    wrong = np.flatnonzero(~right)
    places = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    # An encoder-decoder takes no vectors in place of its tokens, which the shares need.
    explained = module.head == "classification" and not module.multi_label
    explained = explained and not getattr(module.model.config, "is_encoder_decoder", False)
    rows = []
    for number, place in enumerate(places.tolist()):
        row = int(outcome.index[place])
        entry: dict[str, Any] = {
            "id": data.rows[row]["id"],
            "text": shown(data, row),
            "true": names(module, outcome.labels[place]),
            "predicted": names(module, predicted[place]),
            "confidence": float(confidence[place]),
        }
        if explained and number < MISTAKES // 2:
            entry["words"] = explain(module, data, row, int(predicted[place]))
        rows.append(entry)
    write_json(folder / "mistakes.json", rows)


def _write_examples(
    module: TextModel, data: TextData, outcome: Outcome, predicted: Tensor, folder: Path
) -> None:
    """The first texts of each class that were decided rightly, and wrongly."""
    labels, chosen = _hot(outcome.labels, module), _hot(predicted, module)
    rows = []
    for k, name in enumerate(module.classes[:50]):
        for kind, places in (
            ("found", np.flatnonzero(labels[:, k] & chosen[:, k])),
            ("missed", np.flatnonzero(labels[:, k] & ~chosen[:, k])),
        ):
            for place in places[:EXAMPLES].tolist():
                text = shown(data, int(outcome.index[place]), 200)
                rows.append({"class": name, "kind": kind, "text": text})
    write_json(folder / "examples.json", rows)


def write_data(data: TextData, run_dir: Path) -> None:
    """data.json: what the parts hold, how long texts are, and how often a text is in two parts."""
    lengths = data.lengths.numpy()
    edges = np.unique(np.linspace(0, max(int(lengths.max()), 1), 25).round().astype(int))
    histogram = {
        part: np.histogram(lengths[rows], edges)[0].tolist() for part, rows in data.parts.items()
    }
    found = {
        "audit": audit.as_json(data.audit),
        "max_length": data.encoder.max_length,
        "lengths": {"edges": edges.tolist(), "counts": histogram},
        "classes": data.class_counts if data.classes else {},
        "duplicates": data.duplicates,
        "padding": data.padding(),
        "notes": data.notes,
    }
    write_json(run_dir / "data.json", found)
