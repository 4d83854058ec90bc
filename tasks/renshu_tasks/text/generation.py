"""Continuations: perplexity, and answers written beside the ones that were given."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from renshu_tasks.common.files import write_json
from renshu_tasks.text import evaluation, metrics, models, normalise
from renshu_tasks.text.encode import IGNORED

if TYPE_CHECKING:
    from renshu_tasks.text.data import TextData
    from renshu_tasks.text.module import TextModel

SAMPLES = 12
LONGEST = 64
"""Most tokens of a sample in the report."""


def measure(module: TextModel, data: TextData, split: str, folder: Path) -> dict[str, Any]:
    """Perplexity over tokens with a label; samples beside their references."""
    rows, losses, tokens = text_losses(module, data, split)
    samples = _samples(module, data, split)
    write_json(folder / "samples.json", samples)
    figures = {
        "samples": len(rows),
        "tokens": int(tokens.sum()),
        **metrics.bootstrap(metrics.perplexity(losses, tokens), data.groups[rows]),
    }
    if samples:
        figures["sample_exact_match"] = float(np.mean([s["equal"] for s in samples]))
    return figures


@torch.no_grad()
def text_losses(
    module: TextModel, data: TextData, split: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, each one's sum of losses and number of tokens with a label; logits are not kept."""
    rows, losses, tokens = [], [], []
    for batch in evaluation.batches(module, evaluation.loader_of(data, split)):
        logits, labels = module(batch)[:, :-1].float(), batch["labels"][:, 1:]
        each = F.cross_entropy(
            logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none"
        )
        losses.append(each.double().sum(1).cpu())
        tokens.append((labels != IGNORED).sum(1).cpu())
        rows.append(batch["index"].cpu())
    found = [torch.cat(one).numpy() for one in (rows, losses, tokens)]
    order = np.argsort(found[0])
    return found[0][order], found[1][order], found[2][order].astype(np.float64)


def _samples(module: TextModel, data: TextData, split: str) -> list[dict[str, Any]]:
    """The first texts of a part: what was asked, what was given, what the model writes."""
    asked, prompts, references = [], [], []
    for row in data.parts[split][:SAMPLES].tolist():
        prompt, said, reference = _task(module, data, row)
        if prompt and reference:
            asked.append(said)
            prompts.append(prompt)
            references.append(reference)
    answers = generate(module, prompts, LONGEST)
    show = normalise.mask if data.options.mask_private else str
    return [
        {
            "prompt": show(said)[-400:],
            "reference": show(reference),
            "generated": show(answer),
            "equal": answer.strip() == reference.strip(),
        }
        for said, reference, answer in zip(asked, references, answers, strict=True)
    ]


def _task(module: TextModel, data: TextData, row: int) -> tuple[list[int], str, str]:
    """Prompt ids, prompt and reference: a conversation up to its last answer, or half a text."""
    reader, found = module.reader, data.rows[row]
    if found["messages"]:
        turns = json.loads(found["messages"])
        last = max(n for n, turn in enumerate(turns) if turn["role"] == "assistant")
        said = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns[:last])
        return reader.prompt(turns[:last]), said, turns[last]["content"]
    ids = list(data.sample(row)["input_ids"])
    half = max(1, len(ids) // 2)
    text, rest = (
        reader.tokenizer.decode(p, skip_special_tokens=True) for p in (ids[:half], ids[half:])
    )
    return ids[:half], text, rest


@torch.no_grad()
def generate(module: TextModel, prompts: Sequence[list[int]], longest: int) -> list[str]:
    """Greedy answers to prompts; each ends at its end token, or where the positions end.

    Of a prompt beyond `room_for` the last tokens are read, as the question stands there.
    """
    if not prompts:
        return []
    mode = module.training
    module.eval()
    tokenizer, answers = module.reader.tokenizer, []
    room, able = room_for(module, longest), models.positions(module.model.config)
    for prompt in prompts:  # one at a time: nothing depends on who shares a batch
        prompt = tail(prompt, room, tokenizer.bos_token_id)
        ids = torch.tensor([prompt], device=module.device)
        found = module.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=min(longest, able - len(prompt)),
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stops(module),
        )
        answers.append(_words(tokenizer, found[0, len(prompt) :]))
    module.train(mode)
    return answers


def room_for(module: TextModel, longest: int) -> int:
    """Most tokens of a prompt: a quarter of the positions at most is kept for the answer."""
    able = models.positions(module.model.config)
    return min(module.max_length, able - min(longest, able // 4))


def tail(prompt: list[int], room: int, begin: int | None) -> list[int]:
    """The last `room` tokens, of which the first is the begin-of-text if the prompt has one."""
    if len(prompt) <= room:
        return prompt
    kept = prompt[-room:]
    return [begin, *kept[1:]] if begin is not None and prompt[0] == begin else kept


def _words(tokenizer: Any, ids: Tensor) -> str:
    kept = ids[ids >= 0].tolist()  # labels of -100 are no tokens
    return tokenizer.decode(kept, skip_special_tokens=True)


def stops(module: TextModel) -> list[int]:
    """Tokens that end an answer: end-of-text, and what the template closes an answer with."""
    tokenizer = module.reader.tokenizer
    found = {tokenizer.eos_token_id}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    ids, labels = module.reader.chat(turns)
    said = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
    if said and said[-1] in tokenizer.all_special_ids:
        found.add(said[-1])
    return sorted(found)
