"""Entities in texts: measured by sentence, and found in a text with their exact places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renshu.cli.table import TableWriter
from renshu_tasks.common.files import write_json
from renshu_tasks.text import evaluation, metrics

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import TextModel


def measure(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    """Entity F1 over whole sentences: words beyond the limit are wrong, not left out."""
    found = predicted_tags(module, data, split)
    rows = data.parts[split].tolist()
    truth = [data.rows[row]["tags"] for row in rows]
    said = [found[row] for row in rows]
    counts = metrics.entity_counts(truth, said)
    words = np.array([len(one) for one in truth], dtype=np.float64)
    right = np.array([sum(map(str.__eq__, a, b)) for a, b in zip(truth, said, strict=True)])
    with TableWriter(folder / "predictions.csv") as table:
        for row, true, one in zip(rows, truth, said, strict=True):
            table.write(
                {"id": data.rows[row]["id"], "tags": " ".join(true), "predicted": " ".join(one)}
            )
    worst = np.argsort(-(counts[:, 1] + counts[:, 2] - 2 * counts[:, 0]), kind="stable")
    mistakes = [
        {
            "id": data.rows[rows[i]]["id"],
            "text": evaluation.shown(data, rows[i]),
            "true": _listed(data.rows[rows[i]]["words"], truth[i]),
            "predicted": _listed(data.rows[rows[i]]["words"], said[i]),
        }
        for i in worst[: evaluation.MISTAKES]
        if counts[i, 1] + counts[i, 2] > 2 * counts[i, 0]
    ]
    write_json(folder / "mistakes.json", mistakes)
    groups = data.groups[data.parts[split]]
    accuracy = metrics.bootstrap(lambda w: {"word_accuracy": w @ right / (w @ words)}, groups)
    types = sorted({tag[2:] for tag in module.classes if tag != "O"})
    return {
        "samples": len(rows),
        "classes": module.classes,
        **metrics.bootstrap(metrics.entities(counts), groups),
        **accuracy,
        "per_class": [_of_type(kind, truth, said) for kind in types],
    }


def _of_type(kind: str, truth: list[list[str]], said: list[list[str]]) -> dict[str, Any]:
    """Precision, recall and F1 of one type of entity."""
    only = [[t if t[2:] == kind else "O" for t in one] for one in truth]
    other = [[t if t[2:] == kind else "O" for t in one] for one in said]
    hits, true, found = metrics.entity_counts(only, other).sum(0)
    return {
        "class": kind,
        "precision": float(hits / found) if found else None,
        "recall": float(hits / true) if true else None,
        "f1": float(2 * hits / (true + found)) if true + found else None,
        "support": int(true),
    }


def _listed(words: list[str], tags: list[str]) -> str:
    """Entities in words: "person: Ada Lovelace; …"."""
    from seqeval.metrics.sequence_labeling import get_entities

    return "; ".join(f"{k}: {' '.join(words[a : b + 1])}" for k, a, b in get_entities(tags))


@torch.no_grad()
def predicted_tags(module: TextModel, data: TextData, split: str) -> dict[int, list[str]]:
    """Row → the tags of all its words, "O" for those without a token. Logits are not kept."""
    found: dict[int, list[str]] = {}
    for batch in evaluation.batches(module, evaluation.loader_of(data, split)):
        best = module(batch).argmax(-1)
        for row, tags in zip(batch["index"].tolist(), best.tolist(), strict=True):
            words = data.rows[row]["words"]
            places = module.reader({"words": [words]})["words_at"][0]
            chosen = {word: module.classes[tags[place]] for word, place in places.items()}
            found[row] = [chosen.get(word, "O") for word in range(len(words))]
    return found


def entities_of(
    module: TextModel,
    text: str,
    spans: list[tuple[int, int]],
    places: dict[int, int],
    probabilities: Tensor,
) -> list[dict[str, Any]]:
    """The entities of a text, so that text[start:end] is each.

    Args:
        module: gives the tags' names.
        text: as it was given.
        spans: where each word stands in the text.
        places: word → its first token; a word without one belongs to no entity.
        probabilities: [L, K] of the tokens.
    """
    from seqeval.metrics.sequence_labeling import get_entities

    sure = {word: probabilities[place].max(0) for word, place in places.items()}
    tags = [
        module.classes[int(sure[word].indices)] if word in sure else "O"
        for word in range(len(spans))
    ]
    return [
        {
            "type": kind,
            "start": spans[first][0],
            "end": spans[last][1],
            "text": text[spans[first][0] : spans[last][1]],
            "confidence": round(
                min(float(sure[word].values) for word in range(first, last + 1)), 6
            ),
        }
        for kind, first, last in get_entities(tags)
    ]
