"""Runs model.onnx with onnxruntime, and reads texts with tokenizers: no torch, no transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer


def load(folder: Path) -> Callable[..., dict[str, np.ndarray]]:
    """The model as a function: texts, or token ids with their mask, to named arrays.

    It gives `logits` and calibrated `probabilities` (or `vectors`), and of texts the `input_ids`
    that were read.
    """
    about = json.loads((folder / "model.json").read_text("utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # what stands in a text is text
    tokenizer.enable_truncation(about["max_length"])
    tokenizer.enable_padding(pad_id=about["pad_token_id"], pad_token=about["pad_token"])
    session = onnxruntime.InferenceSession(
        folder / "model.onnx", providers=["CPUExecutionProvider"]
    )
    takes = [entry.name for entry in session.get_inputs()]
    gives = [entry.name for entry in session.get_outputs()]

    def run(inputs: dict[str, np.ndarray], texts: Sequence[str] = ()) -> dict[str, np.ndarray]:
        found = {}
        if texts:
            read = tokenizer.encode_batch(list(texts))
            found["input_ids"] = np.array([one.ids for one in read])
            inputs = {
                "input_ids": found["input_ids"],
                "attention_mask": np.array([one.attention_mask for one in read]),
                "token_type_ids": np.array([one.type_ids for one in read]),
            }
        given = {name: inputs[name] for name in takes}
        return found | dict(zip(gives, session.run(gives, given), strict=True))

    return run
