"""The losses of every head, each a mean with the number of items it is a mean over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from renshu_tasks.text.encode import IGNORED

if TYPE_CHECKING:
    from renshu_tasks.text.module import Batch, TextModel

Measured = dict[str, tuple[Tensor, int]]
"""By name a mean, and over how many items it is taken."""


def training(module: TextModel, batch: Batch) -> dict[str, Any]:
    """The loss as trained: weighted and smoothed. {"loss", "num_items"}."""
    head, weights = module.head, module.class_weights
    smoothing = module.training_options.label_smoothing
    if head == "embedding":
        loss = contrastive(module, batch)
        return {"loss": loss, "num_items": len(batch["input_ids"])}
    logits = module(batch)
    if head == "regression":
        return {"loss": _squared(module, logits, batch["label"]), "num_items": len(logits)}
    if module.multi_label:
        target = batch["label"] * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights)
        return {"loss": loss, "num_items": len(logits)}
    logits, labels = _flat(module, logits, batch)
    loss = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
    return {"loss": loss, "num_items": len(labels) if weights is None else weights[labels].sum()}


def evaluation(module: TextModel, batch: Batch) -> Measured:
    """The plain loss, and the share that is right where there is one."""
    if module.head == "embedding":
        return {"loss": (contrastive(module, batch), len(batch["input_ids"]))}
    logits = module(batch)
    if module.head == "regression":
        return {"loss": (_squared(module, logits, batch["label"]), len(logits))}
    if module.multi_label:
        loss = F.binary_cross_entropy_with_logits(logits, batch["label"])
        right = ((logits > 0) == batch["label"].bool()).float().mean()
        return {"loss": (loss, len(logits)), "accuracy": (right, len(logits))}
    logits, labels = _flat(module, logits, batch)
    right = (logits.argmax(-1) == labels).float().mean()
    items = len(labels)
    return {"loss": (F.cross_entropy(logits, labels), items), "accuracy": (right, items)}


def _squared(module: TextModel, output: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in units of the training part's deviation."""
    mean, deviation = module.scale
    return F.mse_loss(output.float(), (target - mean) / deviation)


def _flat(module: TextModel, logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and labels [N] of what carries a label."""
    if module.head == "classification":
        return logits.float(), batch["label"]
    labels = batch["labels"]
    if module.head == "causal":  # a token is told from those before it
        logits, labels = logits[:, :-1], labels[:, 1:]
    chosen = labels != IGNORED
    return logits[chosen].float(), labels[chosen]


def contrastive(module: TextModel, batch: Batch) -> Tensor:
    """Pairs: each text finds its partner among those of the batch; labels: those of its class.

    Pairs: Henderson et al. 2017 in both directions; a partner that is the same text as another's
    is not counted as wrong. Labels: Khosla et al. 2020. Of a batch without two of a class the loss
    is 0.
    """
    vectors = module.embed(batch["input_ids"], batch["attention_mask"])
    temperature = module.training_options.contrast
    if "pair_ids" in batch:
        others = module.embed(batch["pair_ids"], batch["pair_mask"])
        scores = vectors @ others.T / temperature
        twins = _same(batch["pair_ids"]) | _same(batch["input_ids"])
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(twins & ~own, -torch.inf)
        target = torch.arange(len(scores), device=scores.device)
        return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
    scores = vectors @ vectors.T / temperature
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    label = batch["label"]
    alike = (label[:, None] == label) & ~own
    chances = scores.masked_fill(own, -torch.inf).log_softmax(-1)
    some = alike.any(1)
    each = -(chances.masked_fill(~alike, 0.0)).sum(1) / alike.sum(1).clamp(min=1)
    return (each * some).sum() / some.sum().clamp(min=1)


def _same(ids: Tensor) -> Tensor:
    """Bool [B, B]: which rows of padded ids are equal."""
    return (ids[:, None] == ids[None]).all(-1)
