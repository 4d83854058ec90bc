"""Before the first step: what the user's own model gives for a text must not depend on the batch.

Texts are run alone, padded together and, for causal models that are to be packed, in one row.
Logits that differ by more than 1e-4 are refused: training and measuring would depend on who shares
a batch with whom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from renshu.errors import RunError
from renshu.messages import say
from renshu_tasks.text.packing import packed_equals_alone

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import Batch, TextModel

TOLERANCE = 1e-4
TEXTS = 6
"""So many training texts, from the shortest to the longest, are compared."""


@torch.no_grad()
def check(module: TextModel, data: TextData) -> float:
    """The largest difference of a logit between a text alone and in a batch.

    Raises RunError beyond TOLERANCE (times the largest logit, if that is above 1).
    """
    mode = module.training
    module.eval()
    dataset, collate = data.samples("train"), data.collate
    order = np.argsort(data.lengths[data.parts["train"]].numpy(), kind="stable")
    places = order[np.linspace(0, len(order) - 1, min(TEXTS, len(order))).round().astype(int)]
    samples = [dataset[place] for place in places.tolist()]
    alone = [_real(module, collate([sample]), 0) for sample in samples]
    batch = collate(samples)
    together = [_real(module, batch, row) for row in range(len(samples))]
    worst = _compare(alone, together)
    _refuse(worst, alone, "padded", "no model whose logits depend on padding can be measured")
    if data.options.pack:
        packed = packed_equals_alone(module, [sample["input_ids"].tolist() for sample in samples])
        _refuse(packed, alone, "packed", "they see one another")
        worst = max(worst, packed)
    module.train(mode)
    return worst


def _real(module: TextModel, batch: Batch, row: int) -> Tensor:
    """The model's output for a row, without what padding stands for."""
    found = module(batch)[row].float()
    if module.head in ("tokens", "causal"):
        found = found[: int(batch["attention_mask"][row].sum())]
    return found


def _compare(first: list[Tensor], second: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))


def _refuse(worst: float, alone: list[Tensor], how: str, why: str) -> None:
    size = max(1.0, max(float(one.abs().max()) for one in alone))
    if not worst <= TOLERANCE * size:  # NaN is refused as well
        raise RunError(
            f"logits of {how} texts differ by {worst:.2g} from those of each text alone: {why}",
            where="checked on the training texts before the first step",
            allowed=f"up to {TOLERANCE * size:.2g}",
            mend="--data.pack false" if how == "packed" else "--model.attention eager",
        )
    say(f"{how} texts give the logits of each text alone (difference {worst:.1e})")
