"""Dice with cross-entropy or focal loss, in one pass over the voxels that are known."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from renshu_tasks.segmentation.case import IGNORE

_FOCUS = 2.0
_SMOOTH = 1.0


def segmentation_loss(
    logits: Tensor,
    mask: Tensor,
    annotated: Tensor,
    kind: Literal["dice_ce", "dice_focal"] = "dice_ce",
    weights: Tensor | None = None,
) -> Tensor:
    """Mean of the soft Dice loss of the classes above 0, plus cross-entropy or focal loss.

    Dice sums over the batch (Milletari et al. 2016; Isensee et al. 2021), focal loss has γ = 2
    (Lin et al. 2017). A class that nobody looked for in a case takes no part in the softmax there:
    its logit gets no gradient from that case.

    Args:
        logits: float [B, K, *shape].
        mask: int [B, *shape]; IGNORE, and classes that were not looked for, count nowhere.
        annotated: bool [B, K].
        kind: which of both.
        weights: float [K] of the classes in cross-entropy or focal loss.

    Returns:
        0-dim; 0 where nothing is known.
    """
    batch, classes = logits.shape[:2]
    logits = logits.float().flatten(2)
    if not annotated.all():
        hidden = ~annotated[:, :, None]
        logits = logits.masked_fill(hidden, torch.finfo(logits.dtype).min)
    target = mask.reshape(batch, -1).long()
    known = target != IGNORE
    target = target.clamp_min(0)
    known &= annotated.gather(1, target)
    log_p = logits.log_softmax(1)
    log_true = log_p.gather(1, target[:, None])[:, 0]
    p_true = log_true.exp()
    entropy = -log_true
    if kind == "dice_focal":
        entropy = entropy * (1 - p_true) ** _FOCUS
    share = known.to(entropy.dtype)
    if weights is not None:
        share = share * weights[target]
    entropy = torch.where(known, entropy * share, 0.0).sum() / share.sum().clamp_min(1e-6)

    # Sums a class without a one-hot mask: the probability of the true class, by class.
    flat, true = target.flatten(), torch.where(known, p_true, 0.0).flatten()
    both = logits.new_zeros(classes).index_add(0, flat, true)
    counts = torch.bincount(flat[known.flatten()], minlength=classes)
    predicted = (log_p.exp() * known[:, None]).sum((0, 2))
    dice = (2 * both + _SMOOTH) / (predicted + counts + _SMOOTH)
    looked = annotated.any(0)[1:]
    return entropy + 1 - (dice[1:] * looked).sum() / looked.sum().clamp_min(1)


def shrunk(mask: Tensor, shape: torch.Size) -> Tensor:
    """A mask [B, *larger] at the resolution of a coarser output: the nearest voxel of each."""
    if mask.shape[1:] == shape:
        return mask
    return F.interpolate(mask[:, None].float(), size=shape, mode="nearest")[:, 0].to(mask.dtype)
