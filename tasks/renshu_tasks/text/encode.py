"""From texts to token ids: the one function for training, evaluation, prediction and serving."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from renshu.errors import ConfigError, DataError

IGNORED = -100
"""The label of a token that takes no part in the loss, as in transformers."""

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] }}"
    "{{ eos_token if message['role'] == 'assistant' else '' }}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""For models without a template of their own: role, colon, text; an answer ends with the EOS."""

_WORD = re.compile(r"\w+|[^\w\s]")

Columns = dict[str, list[Any]]


class Encoder:
    """A tokenizer with what belongs to it: the head it works for, the limit, the template.

    `__call__` takes columns of rows and gives columns: input_ids, token_type_ids (of pairs, where
    the model knows them), pair_ids (embedding), labels (tokens, causal), `cut` (tokens lost at the
    limit) and `ended` (whether the end-of-text token is still there).

    Special tokens that stand in a text are read as ordinary characters.

    Args:
        tokenizer: a fast tokenizer of transformers.
        head: see `ModelOptions.head`.
        max_length: most tokens a row, special tokens included.
        classes: the tags, in the order of their numbers (tokens only).
    """

    def __init__(
        self, tokenizer: Any, head: str, max_length: int, classes: Sequence[str] = ()
    ) -> None:
        self.tokenizer, self.head, self.max_length = tokenizer, head, max_length
        self.numbers = {name: number for number, name in enumerate(classes)}
        if head == "causal" and not tokenizer.chat_template:
            tokenizer.chat_template = PLAIN_TEMPLATE

    def __call__(self, rows: Mapping[str, Sequence[Any]]) -> Columns:
        """Rows by column → token ids by column, in the same order."""
        if self.head == "tokens":
            return self._words(rows["words"], rows.get("tags"))
        if self.head == "causal":
            return self._causal(rows)
        # By the column, not by its rows: an empty partner is read alike among any others.
        pairs = [pair or "" for pair in rows["pair"]] if "pair" in rows else None
        if self.head == "embedding":
            return self._both(list(rows["text"]), pairs)
        return self._texts(list(rows["text"]), pairs)

    # ---- whole texts

    def _texts(self, texts: list[str], pairs: list[str] | None) -> Columns:
        found = self.tokenizer(texts, pairs, truncation=True, **self._how)
        columns = {"input_ids": found["input_ids"]}
        if pairs is not None and "token_type_ids" in found:
            columns["token_type_ids"] = found["token_type_ids"]
        columns["cut"] = [0] * len(texts)
        long = [row for row, one in enumerate(found.encodings) if one.overflowing]
        if long:  # only these are read again, to say how much was lost
            second = None if pairs is None else [pairs[row] for row in long]
            whole = self.tokenizer([texts[row] for row in long], second, **self._whole)
            for row, ids in zip(long, whole["input_ids"], strict=True):
                columns["cut"][row] = len(ids) - len(columns["input_ids"][row])
        columns["ended"] = [lost == 0 for lost in columns["cut"]]
        return columns

    def _both(self, texts: list[str], pairs: list[str] | None) -> Columns:
        """A text and one that means the same, each by itself."""
        columns = self._texts(texts, None)
        if pairs is not None:
            others = self._texts(pairs, None)
            columns["pair_ids"] = others["input_ids"]
            columns["cut"] = [a + b for a, b in zip(columns["cut"], others["cut"], strict=True)]
        return columns

    @property
    def _whole(self) -> dict[str, Any]:
        return {"split_special_tokens": True, "verbose": False}

    @property
    def _how(self) -> dict[str, Any]:
        return self._whole | {"max_length": self.max_length}

    # ---- words with tags

    def _words(self, words: Sequence[list[str]], tags: Sequence[list[str]] | None) -> Columns:
        """The first token of each word carries its tag; the others none."""
        found = self.tokenizer(
            [list(one) for one in words], is_split_into_words=True, truncation=True, **self._how
        )
        columns: Columns = {"input_ids": found["input_ids"], "labels": [], "cut": []}
        for row, encoding in enumerate(found.encodings):
            places = first_tokens(encoding.word_ids)
            lost = len(words[row]) - 1 - max(places, default=-1) if encoding.overflowing else 0
            columns["cut"].append(lost)
            if tags is not None:
                labels = [IGNORED] * len(encoding.ids)
                for word, place in places.items():
                    labels[place] = self.numbers[tags[row][word]]
                columns["labels"].append(labels)
        columns["ended"] = [lost == 0 for lost in columns["cut"]]
        if tags is None:
            columns["words_at"] = [first_tokens(one.word_ids) for one in found.encodings]
            del columns["labels"]
        return columns

    # ---- continuations

    def _causal(self, rows: Mapping[str, Sequence[Any]]) -> Columns:
        columns: Columns = {"input_ids": [], "labels": [], "cut": [], "ended": []}
        messages = rows.get("messages") or [None] * len(rows["text"])
        for row, turns in enumerate(messages):
            if turns is None:
                ids = self.tokenizer(rows["text"][row], **self._whole)["input_ids"]
                eos = self.tokenizer.eos_token_id
                ids = ids if ids and ids[-1] == eos else [*ids, eos]
                labels = list(ids)
            else:
                ids, labels = self.chat(json.loads(turns))
            columns["input_ids"].append(ids[: self.max_length])
            columns["labels"].append(labels[: self.max_length])
            columns["cut"].append(max(0, len(ids) - self.max_length))
            columns["ended"].append(len(ids) <= self.max_length)
        return columns

    def chat(self, turns: list[dict[str, str]]) -> tuple[list[int], list[int]]:
        """A conversation → ids and labels; only what the assistant says has labels.

        The spans are found by the characters that the template adds for a turn, so the template
        needs no marks, and the token that ends an answer is part of it.

        Raises DataError where the template rewrites earlier turns, so that no span is certain.
        """
        text, spans = self._render(turns)
        encoding = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids = list(encoding["input_ids"])
        labels = [IGNORED] * len(ids)
        for place, (start, end) in enumerate(encoding["offset_mapping"]):
            if start < end and any(first <= start and end <= last for first, last in spans):
                labels[place] = ids[place]
        return ids, labels

    def prompt(self, turns: list[dict[str, str]]) -> list[int]:
        """What the model is given before it answers: ids with exactly one begin-of-text."""
        self.refuse_special(turns)
        text = self._begin(self._apply(turns, True))
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, turns: list[dict[str, str]]) -> tuple[str, list[tuple[int, int]]]:
        self.refuse_special(turns)
        text = self._apply(turns, False)
        spans = []
        for number, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            before = self._apply(turns[:number], True)
            after = self._apply(turns[: number + 1], False)
            if not (after.startswith(before) and text.startswith(after.rstrip())):
                raise DataError(
                    "the chat template changes earlier turns when later ones follow, so it is not"
                    " certain which tokens are the answer's",
                    where=f"message {number + 1}",
                    mend="--data.chat_template FILE with one that only appends",
                )
            spans.append((len(before), len(after.rstrip())))
        stop = self.tokenizer.eos_token
        if not any(text.rstrip().endswith(token) for token in self.tokenizer.all_special_tokens):
            text = text[: spans[-1][1]] + stop  # or the model would never learn to stop
            spans[-1] = (spans[-1][0], len(text))
        shift = len(self._begin(text)) - len(text)
        return self._begin(text), [(start + shift, end + shift) for start, end in spans]

    def _apply(self, turns: list[dict[str, str]], ask: bool) -> str:
        """The template's text; jinja runs it in its sandbox."""
        from jinja2 import TemplateError

        if not turns:
            return ""
        try:
            return self.tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=ask
            )
        except TemplateError as error:
            raise DataError(
                f"the chat template refuses a conversation: {error}",
                where=", ".join(turn["role"] for turn in turns),
                mend="roles in the order that the model knows, or --data.chat_template FILE",
            ) from error

    def _begin(self, text: str) -> str:
        """The text with one begin-of-text token, if the model wants any."""
        bos = self.tokenizer.bos_token
        adds = (
            bos is not None and self.tokenizer("a")["input_ids"][0] == self.tokenizer.bos_token_id
        )
        return bos + text if adds and not text.startswith(bos) else text

    def refuse_special(self, turns: list[dict[str, str]], where: str = "") -> None:
        """Raise DataError for a message with a special token in its text."""
        for number, turn in enumerate(turns, start=1):
            for token in self.tokenizer.all_special_tokens:
                if token in turn["content"]:
                    raise DataError(
                        f"a message holds the special token {token!r}, which would end or begin a"
                        " turn",
                        where=f"{where}, message {number}".removeprefix(", "),
                        mend="take it out of the text",
                    )

    # ---- kept with the model

    def files(self) -> dict[str, str]:
        """The tokenizer's files by name, template included: all that is needed to read texts."""
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer.save_pretrained(folder)
            return {f.name: f.read_text("utf-8") for f in sorted(Path(folder).iterdir())}


def tokenizer_from(files: Mapping[str, str]) -> Any:
    """The tokenizer out of `Encoder.files`."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / Path(name).name).write_text(text, "utf-8")
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def read_template(path: str) -> str:
    """A chat template's text. Raises ConfigError without the file."""
    file = Path(path)
    if not file.is_file():
        raise ConfigError("there is no such template", where=f"data.chat_template {path}")
    return file.read_text("utf-8")


def first_tokens(word_ids: Sequence[int | None]) -> dict[int, int]:
    """Word → place of its first token."""
    places: dict[int, int] = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            places.setdefault(word, place)
    return places


def words_of(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Words and marks of a text, and where each stands: text[start:end] is the word."""
    found = list(_WORD.finditer(text))
    return [one.group() for one in found], [one.span() for one in found]


def joined(words: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Words that were given, with a space between two: the text, and where each word stands."""
    ends = list(accumulate((len(word) + 1 for word in words), initial=0))
    spans = [(start, start + len(word)) for start, word in zip(ends, words, strict=False)]
    return " ".join(words), spans
