"""Predict files of texts: one row each, in order, in constant memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from renshu.errors import DataError
from renshu_tasks.text import readers, table
from renshu_tasks.text.encode import joined, words_of
from renshu_tasks.text.evaluation import names, probability_columns
from renshu_tasks.text.samples import Padding

if TYPE_CHECKING:
    from renshu_tasks.text.module import TextModel
    from renshu_tasks.text.options import DataOptions, TextOptions

WINDOW = 4096
"""So many texts are read, sorted by length, and put back in order."""

TOKENS = 2048
"""Most tokens a batch, padding included: more leave a processor's cache and take longer."""

Read = tuple[str, dict[str, Any], str]
"""Where a text stands, its columns, and what is wrong with it ("" for nothing)."""


@torch.no_grad()
def predict(
    module: TextModel, files: Iterable[str | Path], options: TextOptions
) -> Iterator[dict[str, Any]]:
    """One row a text: id (file and line), what was found, truncated, error.

    Files are those of `data.path`, a line of .txt being a text. By head: predicted, confidence and
    `p_<class>`; value; entities (JSON with start and end in the text); generated; v0, v1 … A text
    that cannot be used raises DataError; with `data.on_empty="skip"` its row says why.
    """
    module.eval()
    texts = (one for file in files for one in _texts(Path(file), module, options.data))
    while window := list(islice(texts, WINDOW)):
        good = [place for place, (_, _, fault) in enumerate(window) if not fault]
        found = dict(zip(good, answers(module, [window[place][1] for place in good]), strict=True))
        blank = dict.fromkeys(_columns(module), "")
        for place, (where, _, fault) in enumerate(window):
            yield {"id": where, **found.get(place, blank), "error": fault}


def _texts(file: Path, module: TextModel, options: DataOptions) -> Iterator[Read]:
    """The texts of one file."""
    for where, row in readers.read(file, options.encoding, options.max_chars):
        columns = _row(module, row, options, f"{file}, {where}")
        text = columns.get("text") or columns.get("messages") or ""
        fault = "" if text.strip() else "the text is empty"
        if fault and options.on_empty == "fail":
            raise DataError(
                fault, where=f"{file}, {where}", mend="--data.on_empty skip leaves its row empty"
            )
        readers.check_length(text, f"{file}, {where}", options.max_chars)
        yield where, columns, fault


def _row(
    module: TextModel, row: dict[str, Any], options: DataOptions, where: str
) -> dict[str, Any]:
    """The columns that the encoder reads."""
    if module.head == "causal" and isinstance(row.get("messages"), list):
        turns = row["messages"]
        for number, turn in enumerate(turns, start=1):
            table.check_turn(turn, f"{where}, message {number}")
        module.reader.refuse_special(turns, where)
        if turns and turns[-1]["role"] == "assistant":
            turns = turns[:-1]  # the reference: what is to be written, not a part of the question
        return {"messages": json.dumps(turns, ensure_ascii=False) if turns else ""}
    if module.head == "tokens" and (given := _given_words(row, options)) is not None:
        text, spans = joined(given)
        return {"text": text, "words": given, "spans": spans}
    name = options.text_column or next((n for n in table.TEXTS if n in row), None)
    if name not in row:
        raise DataError(
            "no column holds the text",
            where=where,
            allowed=", ".join(map(str, row)),
            mend="--data.text_column NAME",
        )
    text = row[name] or ""
    if not isinstance(text, str):
        raise DataError(
            f"{name!r} is {type(text).__name__}, not a text", where=where, allowed="text"
        )
    if module.head == "tokens":
        words, spans = words_of(text)
        return {"text": text, "words": words, "spans": spans}
    if not options.pair_column or module.head == "embedding":
        return {"text": text}
    if options.pair_column not in row:
        raise DataError(
            "the model reads pairs, and no column holds the second text",
            where=where,
            allowed=", ".join(map(str, row)),
            mend=f"a column {options.pair_column!r}, or --data.pair_column NAME",
        )
    return {"text": text, "pair": str(row[options.pair_column] or "")}


def _given_words(row: dict[str, Any], options: DataOptions) -> list[str] | None:
    """The words of a row that comes as words, as training takes them; None for a whole text."""
    names = [options.text_column] if options.text_column else table.WORDS
    found = next((row[name] for name in names if isinstance(row.get(name), list)), None)
    return None if found is None else list(map(str, found))


def answers(module: TextModel, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the model says of some rows, in their order; batches hold texts of like length."""
    if module.head == "causal":
        return _generated(module, rows)
    if not rows:
        return []
    reader = module.reader
    if module.head == "tokens":
        encoded = reader({"words": [row["words"] for row in rows]})
    else:
        encoded = reader({name: [row[name] for row in rows] for name in rows[0]})
    kept = [name for name in ("input_ids", "token_type_ids") if name in encoded]
    collate = Padding(reader.tokenizer.pad_token_id)
    found: list[dict[str, Any]] = [{} for _ in rows]
    for places in _batches([len(ids) for ids in encoded["input_ids"]]):
        batch = collate([{name: encoded[name][place] for name in kept} for place in places])
        outputs = module.logits({name: value.to(module.device) for name, value in batch.items()})
        for place, output in zip(places, _described(module, outputs.cpu()), strict=True):
            if module.head == "tokens":
                output = _entities(module, rows[place], encoded["words_at"][place], output)
            found[place] = {**output, "truncated": encoded["cut"][place] > 0}
    return found


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Places of texts, longest first, no more than TOKENS a batch with padding."""
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    start = 0
    while start < len(order):
        size = max(1, TOKENS // max(lengths[order[start]], 1))
        yield order[start : start + size]
        start += size


def _described(module: TextModel, outputs: Tensor) -> Iterator[Any]:
    """A batch's outputs as columns of rows; of tokens the probabilities [L, K]."""
    if module.head == "regression":
        yield from ({"value": float(value)} for value in outputs)
    elif module.head == "tokens":
        yield from outputs.softmax(-1)
    elif not module.classes:
        for vector in outputs.tolist():
            yield {f"v{number}": value for number, value in enumerate(vector)}
    else:
        probabilities = module.scaled(outputs.to(module.device))
        decided, probabilities = module.decide(probabilities).cpu(), probabilities.cpu()
        for decision, row in zip(decided, probabilities, strict=True):
            sure = torch.where(decision, row, 1 - row).min() if decision.ndim else row[decision]
            yield {
                "predicted": names(module, decision),
                "confidence": round(float(sure), 6),
                **probability_columns(module, row),
            }


def _entities(
    module: TextModel, row: dict[str, Any], places: dict[int, int], probabilities: Tensor
) -> dict[str, Any]:
    from renshu_tasks.text.tagging import entities_of

    found = entities_of(module, row["text"], row["spans"], places, probabilities)
    return {"entities": json.dumps(found, ensure_ascii=False)}


def _generated(module: TextModel, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from renshu_tasks.text import generation

    reader, room = module.reader, generation.room_for(module, module.max_length)
    prompts = [
        reader.prompt(json.loads(row["messages"]))
        if "messages" in row
        else reader.tokenizer(row["text"], split_special_tokens=True)["input_ids"]
        for row in rows
    ]
    found = generation.generate(module, prompts, module.max_length)
    return [
        {"generated": answer, "truncated": len(prompt) > room}
        for prompt, answer in zip(prompts, found, strict=True)
    ]


def _columns(module: TextModel) -> list[str]:
    """The columns of a row, for one that is left empty."""
    known = {"regression": ["value"], "tokens": ["entities"], "causal": ["generated"]}
    if module.head in known:
        own = known[module.head]
    elif module.classes:
        own = ["predicted", "confidence", *(f"p_{name}" for name in module.classes)]
    else:
        own = [f"v{number}" for number in range(module.model.config.hidden_size)]
    return [*own, "truncated"]
