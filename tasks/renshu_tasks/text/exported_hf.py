"""Runs the model in this folder with transformers alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

AUTO = {
    "classification": transformers.AutoModelForSequenceClassification,
    "regression": transformers.AutoModelForSequenceClassification,
    "tokens": transformers.AutoModelForTokenClassification,
    "causal": transformers.AutoModelForCausalLM,
    "embedding": transformers.AutoModel,
}


def load(folder: Path) -> Callable[..., dict[str, np.ndarray]]:
    """The model as a function: texts, or token ids with their mask, to arrays.

    It gives `logits` (or `vectors`), and of texts the `input_ids` that were read.
    """
    facts = json.loads((folder / "renshu.json").read_text("utf-8"))
    network = AUTO[facts["head"]].from_pretrained(folder, use_safetensors=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    classified = facts["head"] == "embedding" and facts["classes"]
    head = load_file(folder / "classifier.safetensors") if classified else None

    @torch.no_grad()
    def run(inputs: dict[str, np.ndarray], texts: Sequence[str] = ()) -> dict[str, np.ndarray]:
        found: dict[str, Any] = {}
        batch = {name: torch.from_numpy(array) for name, array in inputs.items()}
        if texts:
            batch = tokenizer(
                list(texts),
                truncation=True,
                max_length=facts["max_length"],
                split_special_tokens=True,
                padding=True,
                padding_side="right",
                return_tensors="pt",
            )
            found["input_ids"] = batch["input_ids"]
        output = network(**batch)
        if facts["head"] == "embedding":
            vectors = pool(output.last_hidden_state, batch["attention_mask"], facts["pooling"])
            found["vectors"] = vectors
            if head is not None:
                found["logits"] = vectors @ head["weight"].T + head["bias"]
        else:
            logits = output.logits
            found["logits"] = logits[..., 0] if facts["head"] == "regression" else logits
        return {name: value.numpy() for name, value in found.items()}

    return run


def pool(hidden: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Hidden states [B, L, H] and mask [B, L] to vectors of length 1 [B, H]."""
    if how == "mean":
        vectors = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    else:
        places = torch.zeros(len(mask), dtype=torch.int64) if how == "cls" else mask.sum(1) - 1
        vectors = hidden[torch.arange(len(hidden)), places]
    return torch.nn.functional.normalize(vectors, dim=-1)
