"""Labels: from names to classes and numbers; tags that keep the rules of IOB2."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow
from datasets import Dataset

from renshu.errors import DataError, near
from renshu_tasks.text.options import DataOptions
from renshu_tasks.text.splits import Rows


def names_of(rows: Dataset, column: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """A column of lists of names: the names, the number of each entry, where each row's begin.

    Returns (names, int64 [entries], int64 [N + 1]).
    """
    lists = rows.data.table.column(column).combine_chunks()
    if isinstance(lists, pyarrow.ChunkedArray):
        lists = pyarrow.concat_arrays(lists.chunks)
    offsets = np.asarray(lists.offsets, dtype=np.int64)
    encoded = lists.flatten().dictionary_encode()
    names = [str(one) for one in encoded.dictionary.to_pylist()]
    return names, np.asarray(encoded.indices, dtype=np.int64), offsets - offsets[0]


def find_classes(
    names: list[str],
    numbers: np.ndarray,
    offsets: np.ndarray,
    parts: Mapping[str, Rows],
    options: DataOptions,
    order: list[str] | None,
    ids: Dataset,
    where: str,
) -> list[str]:
    """The names in order: as asked, else as the source has them, else sorted.

    Every class has a training text, and no part has a label that is none of them; raises
    DataError otherwise, and for a single class.
    """
    row_of = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    trained = {names[n] for n in np.unique(numbers[np.isin(row_of, parts["train"])])}
    for part in ("val", "test"):
        places = np.isin(row_of, parts[part]) & ~np.isin(
            numbers, [n for n, name in enumerate(names) if name in trained]
        )
        if places.any():
            place = int(places.argmax())
            name = names[numbers[place]]
            raise DataError(
                f"the label {name!r} of the {part} part is not in the training part",
                where=f"{where}, {ids[int(row_of[place])]['id']}",
                allowed=", ".join(sorted(trained)[:20]),
                mend=near(name, trained) or "add training texts of it",
            )
    asked = options.classes
    if asked is not None and (differ := sorted(set(asked) ^ trained)):
        raise DataError(
            f"data.classes and the training part differ in {', '.join(differ)}",
            where=where,
            allowed=f"data.classes: {', '.join(asked)}",
            mend="name each class that has training texts once, and no other",
        )
    classes = [name for name in asked or order or _in_order(trained) if name in trained]
    if len(classes) < 2 - options.multi_label:
        raise DataError(
            f"there is only one class ({', '.join(classes) or 'none'})",
            where=where,
            allowed="two classes or more",
        )
    return classes


def encode(
    names: list[str], numbers: np.ndarray, offsets: np.ndarray, classes: list[str], several: bool
) -> np.ndarray:
    """Int64 [N], or float32 [N, K] of 0 and 1 for multi-label data. -1 where it is no class."""
    position = {name: number for number, name in enumerate(classes)}
    lookup = np.array([position.get(name, -1) for name in names], dtype=np.int64)
    rows = len(offsets) - 1
    if not several:
        return lookup[numbers[offsets[:-1]]]
    encoded = np.zeros((rows, len(classes)), dtype=np.float32)
    row_of = np.repeat(np.arange(rows), np.diff(offsets))
    encoded[row_of, lookup[numbers]] = 1.0
    return encoded


def check_tags(rows: Dataset, where: str) -> None:
    """Raise DataError for the first tag that is no IOB2: O, B-type, or I-type after its own kind.

    Tjong Kim Sang and Veenstra 1999.
    """
    for batch in rows.select_columns(["id", "words", "tags"]).iter(batch_size=1000):
        for place, words, tags in zip(batch["id"], batch["words"], batch["tags"], strict=True):
            before = "O"
            for number, tag in enumerate(tags):
                fault = _fault(tag, before)
                if fault:
                    raise DataError(
                        f"the tag {tag!r} {fault}",
                        where=f"{where}, {place}, word {number + 1} ({words[number]!r})",
                        allowed="O, B-type at an entity's first word, I-type at its others (IOB2)",
                    )
                before = tag


def _fault(tag: str, before: str) -> str | None:
    if tag == "O":
        return None
    kind, dash, name = tag.partition("-")
    if not dash or not name or kind not in ("B", "I"):
        return "is none of IOB2"
    if kind == "I" and before[2:] != name:
        return f"does not follow B-{name} or I-{name} but {before!r}"
    return None


def _in_order(names: set[str]) -> list[str]:
    """Sorted; by value if all are whole numbers, so that label 2 comes before label 10."""
    numbers = all(name.isascii() and name.isdecimal() for name in names)
    return sorted(names, key=lambda name: (int(name) if numbers else 0, name))
