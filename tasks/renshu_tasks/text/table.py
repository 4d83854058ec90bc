"""Rows of a source in one form for each head, checked, on disk and memory-mapped."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Value

from renshu.errors import DataError, near
from renshu_tasks.common.parts import part_of
from renshu_tasks.text import normalise, readers
from renshu_tasks.text.options import DataOptions
from renshu_tasks.text.sources import Source

VERSION = "3"
"""Of what is written to the cache; a change of meaning takes another."""

TEXTS = ("text", "sentence", "sentence1", "question", "tweet", "content", "review", "utterance")
"""Columns in which a text is looked for, in this order."""

_PARTNERS = {
    "text": ("text_pair", "text_b", "hypothesis"),
    "sentence": ("question",),
    "sentence1": ("sentence2",),
    "question": ("sentence", "question2", "passage", "context"),
}
"""By the column of a text, where the second text of common pairs stands."""

_LABELS = ("label", "labels", "category", "class", "sentiment", "intent", "target", "score", "tags")
_TAGS = ("ner_tags", "tags", "labels")
WORDS = ("words", "tokens")
ROLES = ("system", "user", "assistant", "tool")


def tabulate(source: Source, options: DataOptions, head: str) -> tuple[Dataset, int]:
    """Every row of the source, and how many were left out for want of a text.

    Columns: id, part, group, exact, same, and those of the head; pair only with a pair column.

    `exact` and `same` are hashes of the text as it is and normalised. By head: classification
    text, pair, label (names), regression text, pair, value; tokens words, tags; causal text or
    messages (JSON); embedding text, pair, label. A source that was read before, with the same
    content, is taken from the cache.

    Raises DataError that names the row at fault.
    """
    chosen = (options.text_column, options.pair_column, options.label_column, options.split_column)
    more = (options.group_column, options.multi_label, options.label_separator, options.on_empty)
    key = [VERSION, source.digest, head, *chosen, *more, options.max_chars, options.encoding]
    name = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]
    folder = cache_folder(options)
    count = folder / "skipped" / name
    rows = _Rows(source, options, head, count)
    with quiet():
        try:
            found = Dataset.from_generator(
                rows.checked,
                features=_features(head, bool(options.pair_column)),
                cache_dir=str(folder),
                fingerprint=name,
            )
        except datasets.exceptions.DatasetGenerationError as error:
            raise (error.__cause__ or error) from None
    return found, int(count.read_text()) if options.on_empty == "skip" else 0


def label_names(source: Source, options: DataOptions, head: str) -> list[str] | None:
    """What the whole numbers of the label's column mean, where the source says so."""
    usual = _TAGS if head == "tokens" else _LABELS
    column = options.label_column or source.columns.get("label")
    if column is None:
        column = next((name for name in usual if name in source.names), None)
    return (source.names.get(column) if column else None) or None


def cache_folder(options: DataOptions) -> Path:
    """Where tokenised texts are kept."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(options.cache) if options.cache else base / "renshu" / "texts"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's progress bars: a run has one of its own."""
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            datasets.utils.logging.enable_progress_bar()


def _features(head: str, pairs: bool) -> Features:
    text, names = Value("string"), datasets.List(Value("string"))
    common = {"id": text, "part": text, "group": text, "exact": Value("int64")}
    common["same"] = Value("int64")
    own: Mapping[str, Any] = {
        "classification": {"text": text, "pair": text, "label": names},
        "regression": {"text": text, "pair": text, "value": Value("float64")},
        "tokens": {"words": names, "tags": names},
        "causal": {"text": text, "messages": text},
        "embedding": {"text": text, "pair": text, "label": names},
    }[head]
    return Features({n: kind for n, kind in (common | own).items() if pairs or n != "pair"})


class _Rows:
    """Turns a source's rows into those of the table, each checked."""

    def __init__(self, source: Source, options: DataOptions, head: str, count: Path) -> None:
        self.source, self.options, self.head, self.count = source, options, head, count
        self.labels: tuple[type, str] | None = None
        self.names = label_names(source, options, head)

    def checked(self) -> Iterator[dict[str, Any]]:
        """The rows in order; raises DataError for the first that cannot be used."""
        empty = 0
        for part, place, row in self.source.rows():
            where = f"{self.source.where}, {place}"
            found = getattr(self, f"_{self.head}")(row, where)
            text = found.pop("key")
            if not text.strip():
                if self.options.on_empty == "skip":
                    empty += 1
                    continue
                raise DataError(
                    "a text is empty", where=where, mend="--data.on_empty skip leaves such rows out"
                )
            readers.check_length(text, where, self.options.max_chars)
            yield {
                "id": place,
                "part": part or self._part(row, where),
                "group": self._group(row, where),
                "exact": normalise.digest(text),
                "same": normalise.digest(normalise.normalise(text)),
            } | found
        if self.options.on_empty == "skip":  # kept for when the rows come from the cache
            self.count.parent.mkdir(parents=True, exist_ok=True)
            self.count.write_text(str(empty))

    # ---- one method a head: the columns, and under "key" the text that stands for the row

    def _classification(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        text, pair = self._texts(row, where)
        label = self._label(row, where)
        if not self.options.multi_label:
            _check_single(label, where, mend="--data.multi_label true")
        return {"text": text, "pair": pair, "label": label, "key": text + "\0" * bool(pair) + pair}

    def _regression(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        text, pair = self._texts(row, where)
        given = row[self._column(row, self.options.label_column, _LABELS, "label", where)]
        try:
            value = float(given)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{given!r} is not a number", where=where, allowed="a number for regression"
            ) from error
        if not -1e30 < value < 1e30:
            raise DataError(f"the number {value} cannot be learned", where=where)
        return {"text": text, "pair": pair, "value": value, "key": text + "\0" * bool(pair) + pair}

    def _tokens(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        words = row[self._column(row, self.options.text_column, WORDS, "text", where)]
        tags = row[self._column(row, self.options.label_column, _TAGS, "label", where)]
        tags = [self._name(tag, where) for tag in tags]
        if len(words) != len(tags):
            raise DataError(f"{len(words)} words have {len(tags)} tags", where=where)
        return {"words": list(map(str, words)), "tags": tags, "key": " ".join(map(str, words))}

    def _causal(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        if "messages" not in row or self.options.text_column:
            text, _ = self._texts(row, where)
            return {"text": text, "messages": None, "key": text}
        turns = row["messages"]
        if not isinstance(turns, list) or not turns:
            raise DataError("a conversation has no messages", where=where)
        for number, turn in enumerate(turns, start=1):
            check_turn(turn, f"{where}, message {number}")
        if all(turn["role"] != "assistant" for turn in turns):
            raise DataError(
                "a conversation has no answer to learn from",
                where=where,
                allowed="at least one message of the role assistant",
            )
        kept = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
        said = "\n".join(turn["content"] for turn in turns)
        return {"text": None, "messages": json.dumps(kept, ensure_ascii=False), "key": said}

    def _embedding(self, row: dict[str, Any], where: str) -> dict[str, Any]:
        text, pair = self._texts(row, where)
        if self.options.pair_column:
            key = text if pair.strip() else ""  # without its partner a text says nothing
            return {"text": text, "pair": pair, "label": [], "key": key}
        label = self._label(row, where)
        if not self.options.multi_label:
            _check_single(label, where, mend="give the text a label, or take the row out")
        return {"text": text, "pair": pair, "label": label, "key": text}

    # ---- single columns

    def _texts(self, row: dict[str, Any], where: str) -> tuple[str, str]:
        """The text and the one that belongs to it, "" where there is none."""
        names = [self._column(row, self._known("text"), TEXTS, "text", where)]
        if not (self.options.text_column or self.options.pair_column):
            _refuse_partner(row, names[0], where)
        if self.options.pair_column:
            names.append(self._column(row, self.options.pair_column, (), "pair", where))
        texts = [row[name] for name in names]
        for name, text in zip(names, texts, strict=True):
            if text is not None and not isinstance(text, str):
                raise DataError(
                    f"{name!r} is {type(text).__name__}, not a text", where=where, allowed="text"
                )
        return texts[0] or "", (texts[1] or "") if len(texts) > 1 else ""

    def _known(self, what: str) -> str | None:
        return getattr(self.options, f"{what}_column") or self.source.columns.get(what)

    def _label(self, row: dict[str, Any], where: str) -> list[str]:
        value = row[self._column(row, self._known("label"), _LABELS, "label", where)]
        several = self.options.multi_label
        if several and isinstance(value, str):
            value = [one.strip() for one in value.split(self.options.label_separator)]
            value = [one for one in value if one]
        if isinstance(value, list | tuple):
            return [self._name(one, where) for one in value]
        return [] if value in (None, "") else [self._name(value, where)]

    def _name(self, value: Any, where: str) -> str:
        """A label's name; all labels of a source are text, or all are whole numbers."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, str | int):
            raise DataError(f"the label {value!r} is not a name or a whole number", where=where)
        kind = str if isinstance(value, str) else int
        if self.labels is None:
            self.labels = kind, where
        elif self.labels[0] is not kind:
            kinds = {str: "text", int: "a number"}
            raise DataError(
                f"the label {value!r} is {kinds[kind]}, others are {kinds[self.labels[0]]}",
                where=f"{where}; the other: {self.labels[1]}",
                allowed="labels of one kind in all rows and parts",
            )
        names = self.names
        if isinstance(value, str) or names is None:
            return str(value).strip()
        if not 0 <= value < len(names):
            raise DataError(f"the label {value} has no name", where=where, allowed=", ".join(names))
        return names[value]

    def _part(self, row: dict[str, Any], where: str) -> str | None:
        name = self.options.split_column or ("split" if "split" in row else None)
        if name is None:
            return None
        value = str(row[self._column(row, name, (), "split", where)]).strip().lower()
        return part_of(value, where)

    def _group(self, row: dict[str, Any], where: str) -> str | None:
        name = self.options.group_column or ("group" if "group" in row else None)
        value = None if name is None else row[self._column(row, name, (), "group", where)]
        return None if value in (None, "") else str(value)

    def _column(
        self, row: dict[str, Any], asked: str | None, usual: tuple[str, ...], what: str, where: str
    ) -> str:
        """The column as asked for, else the first usual one that is there."""
        if asked is not None and asked in row:
            return asked
        found = next((name for name in usual if asked is None and name in row), None)
        if found is None:
            raise DataError(
                f"there is no column {asked!r}" if asked else f"no column holds the {what}",
                where=where,
                allowed=", ".join(map(str, row)),
                mend=near(asked, map(str, row)) if asked else f"--data.{what}_column NAME",
            )
        return found


def _refuse_partner(row: dict[str, Any], name: str, where: str) -> None:
    """Raise DataError where a second text stands beside the one that was found."""
    if other := next((n for n in _PARTNERS.get(name, ()) if isinstance(row.get(n), str)), None):
        raise DataError(
            f"beside the text in {name!r} there is one in {other!r}",
            where=where,
            allowed=f"--data.pair_column {other} for both, --data.text_column {name} for one",
        )


def _check_single(label: list[str], where: str, mend: str) -> None:
    """Raise DataError unless a text has one label."""
    if len(label) != 1:
        raise DataError(
            f"a text has {len(label)} labels ({', '.join(label) or 'none'})",
            where=where,
            allowed="one label a text",
            mend=mend,
        )


def check_turn(turn: Any, where: str) -> None:
    """Raise DataError for a message without a known role and a text."""
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
        raise DataError(
            "a message is no role with a text", where=where, allowed='{"role", "content"}'
        )
    if turn.get("role") not in ROLES:
        role = str(turn.get("role"))
        raise DataError(
            f"there is no role {role!r}",
            where=where,
            allowed=", ".join(ROLES),
            mend=near(role, ROLES),
        )
