"""Rows of files, one at a time: CSV, JSONL, parquet, plain text, CoNLL, Hugging Face data sets.

A reader yields (id, row): where the row stands, for messages, and a dict of its columns. Nothing
but the current row, or one row group of parquet, is held in memory.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from renshu.errors import ConfigError, DataError

Row = tuple[str, dict[str, Any]]
"""Where a row stands, such as "train.csv:17", and its columns."""

KINDS = ".csv, .tsv, .jsonl, .ndjson, .parquet, .txt, .conll, .iob, .bio"


def read(path: Path, encoding: str, max_chars: int) -> Iterator[Row]:
    """The rows of one file, by its ending.

    Raises:
        DataError: what cannot be read, with file and line.
        ConfigError: an encoding that is unknown or does not keep lines apart.
    """
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _parquet(path)
    lines = _lines(path, encoding, max_chars)
    if suffix in (".csv", ".tsv"):
        return _csv(path, lines, "," if suffix == ".csv" else "\t", max_chars)
    if suffix in (".jsonl", ".ndjson"):
        return _jsonl(path, lines)
    if suffix == ".txt":
        return ((f"{path.name}:{number}", {"text": line}) for number, line in lines)
    if suffix in (".conll", ".iob", ".bio"):
        return _conll(path, lines)
    raise DataError("the file is of no kind that can be read", where=path, allowed=KINDS)


def _lines(path: Path, encoding: str, max_chars: int) -> Iterator[tuple[int, str]]:
    """Numbered lines without their end; each is decoded by itself, so a fault has its number."""
    try:
        plain = "\n".encode(encoding) == b"\n"
        first = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    except LookupError as error:
        raise ConfigError(str(error), where="data.encoding", allowed="such as utf-8") from error
    if not plain:
        raise ConfigError(
            f"lines cannot be told apart in {encoding}", where="data.encoding", mend="save as utf-8"
        )
    limit = 4 * max_chars  # bytes of so many characters, at most
    with path.open("rb") as file:
        number = 0
        while raw := file.readline(limit + 2):
            number += 1
            where = f"{path}, line {number}"
            if len(raw) > limit + 1:
                raise _too_long(where, max_chars)
            try:
                text = raw.decode(first if number == 1 else encoding)  # without a byte order mark
            except UnicodeDecodeError as error:
                raise DataError(
                    f"byte {raw[error.start]:#04x} at position {error.start} is not {encoding}",
                    where=where,
                    allowed=f"text in {encoding}",
                    mend="--data.encoding latin-1, or save the file as utf-8",
                ) from error
            yield number, text.rstrip("\r\n")


def _too_long(where: str, max_chars: int) -> DataError:
    return DataError(
        f"a text is longer than {max_chars:,} characters",
        where=where,
        allowed=f"data.max_chars: {max_chars:,}",
        mend="is a line end missing? else cut the document, or a larger --data.max_chars",
    )


def check_length(text: str, where: str, max_chars: int) -> None:
    """Raise DataError for a text beyond `max_chars` characters."""
    if len(text) > max_chars:
        raise _too_long(where, max_chars)


def _csv(
    path: Path, lines: Iterator[tuple[int, str]], delimiter: str, max_chars: int
) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), 4 * max_chars))
    table = csv.reader((line + "\n" for _, line in lines), delimiter=delimiter, strict=True)
    try:
        names = next(table, None)
        if not names:
            raise DataError("the table is empty", where=path, allowed="a line of column names")
        if twice := [name for name in names if names.count(name) > 1]:
            raise DataError(f"two columns have the name {twice[0]!r}", where=path)
        for cells in table:
            if not cells:
                continue
            where = f"{path.name}:{table.line_num}"
            if len(cells) != len(names):
                raise DataError(
                    f"{len(cells)} cells in a table of {len(names)} columns",
                    where=f"{path}, line {table.line_num}",
                    allowed=", ".join(names),
                    mend="put quotes around a text that holds the separator",
                )
            yield where, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise DataError(
            f"the table cannot be read: {error}", where=f"{path}, line {table.line_num}"
        ) from error


def _jsonl(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"this is not JSON: {error}", where=f"{path}, line {number}") from error
        if not isinstance(row, dict):
            raise DataError(
                f"a row is {type(row).__name__}", where=f"{path}, line {number}", allowed="{…}"
            )
        yield f"{path.name}:{number}", row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        number = 0
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", row
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"the file cannot be read: {error}", where=path) from error


def _conll(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[Row]:
    """Sentences of `word … tag` lines, parted by empty ones; of several tags the first counts."""
    words: list[str] = []
    tags: list[str] = []
    start = 1
    for number, line in lines:
        cells = line.split("\t") if "\t" in line else line.split()
        if not line.strip() or line.startswith("-DOCSTART-"):
            if words:
                yield f"{path.name}:{start}", {"words": words, "tags": tags}
            words, tags, start = [], [], number + 1
            continue
        if len(cells) < 2:
            raise DataError(
                f"a line has a word and no tag: {line!r}",
                where=f"{path}, line {number}",
                allowed="word, tab, tag; an empty line between sentences",
            )
        words.append(cells[0])
        tags.append(cells[-1].strip().partition(",")[0])
    if words:
        yield f"{path.name}:{start}", {"words": words, "tags": tags}
