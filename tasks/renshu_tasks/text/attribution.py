"""Integrated gradients: which words a decision rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from renshu_tasks.text import normalise

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import TextModel

STEPS = 16


def integrated_gradients(
    model: nn.Module, inputs: dict[str, Tensor], target: int, pad: int, steps: int = STEPS
) -> tuple[Tensor, Tensor]:
    """Sundararajan et al. 2017, on the embeddings, from a text of padding to the text.

    Args:
        model: of transformers, in evaluation mode, giving logits [B, K].
        inputs: input_ids and the like, int64 [1, L].
        target: the class to explain.
        pad: the padding's token id, which stands for no text.
        steps: points of the midpoint rule on the way.

    Returns:
        float32 [L]: each token's share of the logit; and the difference that they should sum to.
    """
    table = model.get_input_embeddings()
    ids = inputs["input_ids"]
    keep = torch.zeros_like(ids, dtype=torch.bool)
    keep[:, 0] = keep[:, -1] = True  # special tokens stand in both
    empty = table(torch.where(keep, ids, pad)).detach()
    whole = table(ids).detach()
    others = {name: value for name, value in inputs.items() if name != "input_ids"}
    ways = (torch.arange(steps, device=ids.device) + 0.5) / steps
    points = (empty + ways[:, None, None] * (whole - empty)).requires_grad_()
    spread = {name: value.expand(steps, -1) for name, value in others.items()}
    with torch.enable_grad():
        logits = model(inputs_embeds=points, **spread).logits[:, target]
        (gradient,) = torch.autograd.grad(logits.sum(), points)
    shares = ((whole - empty)[0] * gradient.mean(0)).sum(-1)
    with torch.no_grad():
        ends = model(inputs_embeds=torch.cat([empty, whole]), **{
            name: value.expand(2, -1) for name, value in others.items()
        }).logits[:, target]  # fmt: skip
    return shares.detach(), ends[1] - ends[0]


def explain(module: TextModel, data: TextData, row: int, target: int) -> list[dict[str, Any]]:
    """The words of a text, each with its share of the decision's logit, in reading order."""
    batch = data.collate([data.sample(row)])
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: batch[name].to(module.device) for name in names if name in batch}
    tokenizer = module.reader.tokenizer
    mode = module.training
    module.eval()
    shares, _ = integrated_gradients(module.model, inputs, target, tokenizer.pad_token_id)
    module.train(mode)
    text = data.rows[row]
    encoding = module.reader.tokenizer(
        text["text"], text.get("pair"), truncation=True, max_length=module.max_length,
        split_special_tokens=True,
    )  # fmt: skip
    words: list[dict[str, Any]] = []
    last = None
    for place, (word, part) in enumerate(
        zip(encoding.word_ids(), encoding.sequence_ids(), strict=True)
    ):
        if word is None:
            continue
        span = encoding.token_to_chars(place)
        source = text["text"] if part == 0 else text["pair"]
        if (part, word) == last:
            words[-1]["share"] += float(shares[place])
            words[-1]["word"] += source[span.start : span.end]
        else:
            words.append({"word": source[span.start : span.end], "share": float(shares[place])})
        last = (part, word)
    if data.options.mask_private:
        hidden = _hide(words)
        return [word for word, hide in zip(words, hidden, strict=True) if not hide]
    return words


def _hide(words: list[dict[str, Any]]) -> list[bool]:
    """Whether a word may be part of a handle, an address or a number: digits, or beside an @."""
    near = [False] * len(words)
    for place, entry in enumerate(words):
        if "@" in entry["word"]:
            for other in range(max(0, place - 3), min(len(words), place + 4)):
                near[other] = True
    digits = [sum(c.isdigit() for c in entry["word"]) > 3 for entry in words]
    changed = [normalise.mask(entry["word"]) != entry["word"] for entry in words]
    return [a or b or c for a, b, c in zip(near, digits, changed, strict=True)]
