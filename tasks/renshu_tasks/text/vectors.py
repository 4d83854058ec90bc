"""Vectors of texts: how well partners are found, and few-shot classification on top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renshu_tasks.common.files import write_json
from renshu_tasks.text import evaluation, metrics

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import TextModel


def measure(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    """Of each text: is its partner the nearest of all (recall_at_1), among the nearest five."""
    first, second, rows = pairs(module, evaluation.loader_of(data, split))
    ranks = partner_ranks(first, second)
    write_json(folder / "ranks.json", ranks.tolist())
    figures = metrics.shares(recall_at_1=ranks == 1, recall_at_5=ranks <= 5)
    found = metrics.bootstrap(figures, data.groups[rows])
    inverse = 1 / ranks
    mean = metrics.bootstrap(lambda w: {"mrr": w @ inverse / w.sum(1)}, data.groups[rows])
    return {"samples": len(rows), **found, **mean}


@torch.no_grad()
def pairs(module: TextModel, loader: DataLoader[Any]) -> tuple[Tensor, Tensor, np.ndarray]:
    """Vectors [N, H] of texts and of their partners, and the rows, in the source's order."""
    first, second, rows = [], [], []
    for batch in evaluation.batches(module, loader):
        first.append(module.embed(batch["input_ids"], batch["attention_mask"]).cpu())
        second.append(module.embed(batch["pair_ids"], batch["pair_mask"]).cpu())
        rows.append(batch["index"].cpu())
    order = torch.cat(rows).argsort()
    a, b, index = (torch.cat(one)[order] for one in (first, second, rows))
    return a, b, index.numpy()


def partner_ranks(first: Tensor, second: Tensor) -> np.ndarray:
    """Int64 [N]: how many partners are as near to a text as its own, that one included."""
    ranks = []
    for start in range(0, len(first), 1024):
        scores = first[start : start + 1024] @ second.T
        own = scores.diagonal(start)[:, None]
        ranks.append((scores >= own - 1e-7).sum(1))
    return torch.cat(ranks).numpy()


@torch.no_grad()
def embed_all(module: TextModel, loader: DataLoader[Any]) -> tuple[Tensor, Tensor]:
    """Vectors [N, H] and labels [N] of a loader's texts."""
    found, labels = [], []
    for batch in evaluation.batches(module, loader):
        found.append(module.embed(batch["input_ids"], batch["attention_mask"]).cpu())
        labels.append(batch["label"].cpu())
    return torch.cat(found), torch.cat(labels)


def fit_classifier(module: TextModel, data: TextData) -> None:
    """Logistic regression on the vectors of the training part, after the contrastive training.

    Few-shot classification after Tunstall et al. 2022 (SetFit).
    """
    from sklearn.linear_model import LogisticRegression

    vectors, labels = embed_all(module, data.plain_loader("train"))
    found = LogisticRegression(max_iter=1000, C=10.0).fit(vectors.numpy(), labels.numpy())
    weight, bias = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # one row that speaks for the second class
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    assert module.classifier is not None
    with torch.no_grad():
        module.classifier.weight.copy_(torch.from_numpy(weight))
        module.classifier.bias.copy_(torch.from_numpy(bias))
