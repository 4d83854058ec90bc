"""What the texts hold before the first step: labels that remain, tokens lost, end-of-text kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from renshu.errors import DataError
from renshu_tasks.text.splits import Rows

_SHOWN = 10


@dataclass(frozen=True)
class Part:
    """One part after truncation.

    Attributes:
        rows: how many.
        tokens: of all rows, special tokens included.
        labelled_rows: rows with something to learn from.
        labelled_tokens: tokens with a label (tokens, causal), else the labelled rows.
        cut_rows: rows that were cut at data.max_length.
        cut_tokens: tokens lost by that (words for head tokens).
        ended_rows: rows that still end with their last token.
        longest: tokens of the longest row.
    """

    rows: int
    tokens: int
    labelled_rows: int
    labelled_tokens: int
    cut_rows: int
    cut_tokens: int
    ended_rows: int
    longest: int

    def describe(self, name: str, unit: str) -> str:
        """A line for the terminal."""
        line = f"{name}: {self.rows:,} rows, {self.tokens:,} tokens (longest {self.longest})"
        if unit == "tokens":
            share = self.labelled_tokens / max(self.tokens, 1)
            line += f"; {self.labelled_tokens:,} carry a label ({share:.0%})"
        if self.cut_rows:
            lost = self.cut_tokens / (self.tokens + self.cut_tokens)
            line += f"; {self.cut_rows:,} rows cut, {self.cut_tokens:,} tokens lost ({lost:.1%})"
        return line


def audit(encoded: Dataset, parts: Mapping[str, Rows], where: str, ids: Dataset) -> dict[str, Part]:
    """Count, and refuse rows that nothing can be learned from.

    Args:
        encoded: columns length, labelled, cut, ended.
        parts: rows of each part.
        where: what messages call the source.
        ids: rows with their `id`.

    Raises:
        DataError: rows without a labelled token, with where they stand.
    """
    columns = {name: column(encoded, name) for name in ("length", "labelled", "cut", "ended")}
    for part, rows in parts.items():
        without = rows[columns["labelled"][rows] == 0]
        if len(without):
            names = [ids[int(row)]["id"] for row in without[:_SHOWN]]
            more = f" and {len(without) - _SHOWN} more" if len(without) > _SHOWN else ""
            raise DataError(
                f"{len(without)} rows of the {part} part have no token to learn from",
                where=f"{where}: {', '.join(names)}{more}",
                allowed="at least one token with a label in every row, after truncation",
                mend="a larger --data.max_length, or leave these rows out",
            )
    return {part: _count(columns, rows) for part, rows in parts.items() if len(rows)}


def _count(columns: Mapping[str, np.ndarray], rows: Rows) -> Part:
    chosen = {name: values[rows] for name, values in columns.items()}
    return Part(
        rows=len(rows),
        tokens=int(chosen["length"].sum()),
        labelled_rows=int((chosen["labelled"] > 0).sum()),
        labelled_tokens=int(chosen["labelled"].sum()),
        cut_rows=int((chosen["cut"] > 0).sum()),
        cut_tokens=int(chosen["cut"].sum()),
        ended_rows=int(chosen["ended"].sum()),
        longest=int(chosen["length"].max()),
    )


def as_json(parts: Mapping[str, Part]) -> dict[str, Any]:
    """The counts as plain numbers."""
    return {name: asdict(part) for name, part in parts.items()}


def column(rows: Dataset, name: str) -> np.ndarray:
    """A column of numbers as an array [N]."""
    return np.asarray(rows.data.table.column(name).to_numpy())
