"""Three-way merge of text by lines; conflicts carry diff3 marks, which show all three sides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

OURS, BASE, THEIRS, END = "<<<<<<< ", "||||||| ", "=======", ">>>>>>> "
_BLOCK = re.compile(r'^\[([^\]\n]+)\]|^([\w-]+) = \[\n((?: +"[^"\n]+",\n)+)\]\n', re.MULTILINE)
_NAME = re.compile(r' +"([A-Za-z0-9._-]+)')


def merge(base: str, ours: str, theirs: str) -> tuple[str, int]:
    """The merged text, and the number of conflicts.

    The algorithm is diff3 (Khanna, Kunal and Pierce 2007): where both sides agree with the base
    they are in step; between such places the side that differs from the base wins, and if both do,
    both are shown.
    """
    sides = [re.findall(r".*\n|.+", text) for text in (base, ours, theirs)]
    merged: list[str] = []
    conflicts = 0
    done = [0, 0, 0]
    for starts, length in _in_step(*sides):
        parts = [side[a:b] for side, a, b in zip(sides, done, starts, strict=True)]
        settled = _settle(*parts)
        conflicts += settled is None
        merged += _marked(*parts) if settled is None else settled
        merged += sides[0][starts[0] : starts[0] + length]
        done = [start + length for start in starts]
    return "".join(merged), conflicts


def has_marks(text: str) -> bool:
    """Whether a conflict is left in a text."""
    return any(line.startswith((OURS, END)) for line in text.split("\n"))


def merge_requirements(base: str, ours: str, theirs: str) -> tuple[str, str, str]:
    """The three texts with their lists of requirements replaced by the merged one.

    Requirements have no order, and lines beside each other are no conflict: they are merged by
    package. A list in which both sides changed one package is left to the merge by lines.
    """
    for table, key in _blocks(theirs):
        lists = [_blocks(text).get((table, key)) for text in (base, ours, theirs)]
        found = [_requirements(one[3]) for one in lists if one is not None]
        merged = _merged_requirements(*found) if len(found) == 3 else None
        if merged is not None:
            lines = "".join(merged[name] for name in sorted(merged))
            base, ours, theirs = (
                f"{one.string[: one.start()]}{key} = [\n{lines}]\n{one.string[one.end() :]}"
                for one in lists
                if one is not None
            )
    return base, ours, theirs


def _in_step(
    base: list[str], ours: list[str], theirs: list[str]
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Where all three have the same lines: starts in each, and how many; last the three ends."""
    mine = SequenceMatcher(None, base, ours, autojunk=False).get_matching_blocks()
    others = SequenceMatcher(None, base, theirs, autojunk=False).get_matching_blocks()
    i = j = 0
    while i < len(mine) and j < len(others):
        start = max(mine[i].a, others[j].a)
        ends = mine[i].a + mine[i].size, others[j].a + others[j].size
        if start < min(ends):
            places = start, mine[i].b + start - mine[i].a, others[j].b + start - others[j].a
            yield places, min(ends) - start
        i, j = (i + 1, j) if ends[0] < ends[1] else (i, j + 1)
    yield (len(base), len(ours), len(theirs)), 0


def _settle(base: list[str], ours: list[str], theirs: list[str]) -> list[str] | None:
    """The lines that hold, or None if both sides changed them differently."""
    if theirs in (base, ours):
        return ours
    return theirs if ours == base else None


def _marked(base: list[str], ours: list[str], theirs: list[str]) -> list[str]:
    def ended(lines: list[str]) -> list[str]:
        return [line if line.endswith("\n") else f"{line}\n" for line in lines]

    marks = f"{OURS}yours\n", f"{BASE}the template it was made from\n", f"{THEIRS}\n"
    return [
        *(marks[0], *ended(ours), marks[1], *ended(base), marks[2], *ended(theirs)),
        f"{END}the new template\n",
    ]


def _blocks(text: str) -> dict[tuple[str, str], re.Match[str]]:
    """Lists of requirements by table and key; group 3 is the lines between the brackets."""
    table, found = "", {}
    for match in _BLOCK.finditer(text):
        if match[1]:
            table = match[1]
        else:
            found[table, match[2]] = match
    return found


def _requirements(lines: str) -> dict[str, str]:
    """Lines by package of one list: a package has several where markers choose between them."""
    found: dict[str, str] = {}
    for line in lines.splitlines(keepends=True):
        match = _NAME.match(line)
        name = match[1].lower() if match else line
        found[name] = found.get(name, "") + line
    return found


def _merged_requirements(
    base: dict[str, str], ours: dict[str, str], theirs: dict[str, str]
) -> dict[str, str] | None:
    merged: dict[str, str] = {}
    for name in {**ours, **theirs}:
        sides = [[side[name]] if name in side else [] for side in (base, ours, theirs)]
        settled = _settle(*sides)
        if settled is None:
            return None
        if settled:
            merged[name] = settled[0]
    return merged
