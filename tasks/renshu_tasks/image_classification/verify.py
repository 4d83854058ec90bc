"""Looks at every picture once before training: readable, what kind, its hash; finds twins."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import PIL
from torch import Tensor

from renshu.errors import DataError
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.readers import Facts, examine
from renshu_tasks.image_classification.records import Records

_SHOWN = 5


def examine_all(records: Records, options: DataOptions) -> tuple[Records, list[Facts]]:
    """The samples whose pictures can be read, and what each picture is.

    Raises DataError that names the pictures which cannot be read; with on_bad_image="skip" they
    are left out and noted instead. Files that were decoded before are recognised by their
    content, so a second run reads them but decodes none.
    """
    if isinstance(records.pictures, Tensor):
        return records, [_facts(pixels) for pixels in records.pictures]
    known = _Known(records.where, options.max_pixels)

    def look(row: int) -> Facts | DataError:
        raw, name = records.picture(row)
        try:
            return examine(raw, name, known.pictures, options.max_pixels)
        except DataError as error:
            return error

    found = records.look(range(len(records)), look)
    good = [row for row, result in enumerate(found) if isinstance(result, Facts)]
    bad = [result for result in found if isinstance(result, DataError)]
    facts = [result for result in found if isinstance(result, Facts)]
    if bad and (options.on_bad_image == "fail" or not good):
        raise _refusal(bad, len(found))
    known.keep(facts)
    if bad:
        records = records.keep(good)
        names = ", ".join(str(error.where) for error in bad[:_SHOWN])
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        count = "1 picture" if len(bad) == 1 else f"{len(bad)} pictures"
        records.notes.append(f"{count} cannot be read, left out: {names}{more}")
    return records, facts


def _refusal(bad: list[DataError], count: int) -> DataError:
    if len(bad) == 1:
        return bad[0]
    return DataError(
        f"{len(bad)} of {count} pictures cannot be read; the first:",
        where="\n           ".join(f"{error.where}: {error.what}" for error in bad[:_SHOWN]),
        allowed=bad[0].allowed,
        mend=bad[0].mend,
    )


def refuse_twins(names: list[str], facts: list[Facts], parts: dict[str, Any]) -> None:
    """Raises DataError that names both where the same picture is in two parts."""
    seen: dict[str, tuple[str, int]] = {}
    twins = []
    for part, rows in parts.items():
        for row in rows:
            first = seen.setdefault(facts[row].sha256, (part, row))
            if first[0] != part:
                twins.append(f"{names[first[1]]} ({first[0]}) = {names[row]} ({part})")
    if twins:
        raise DataError(
            f"the same picture is in two parts, {len(twins)} times",
            where="; ".join(twins[:_SHOWN]),
            allowed="a picture in one part only, or the result on that part means nothing",
            mend="remove one of each, or --data.allow_overlap true",
        )


def _facts(pixels: Tensor) -> Facts:
    """What is known of an array [C, H, W]."""
    content = f"{list(pixels.shape)}".encode() + pixels.numpy().tobytes()
    height, width = pixels.shape[1:]
    return Facts(
        hashlib.sha256(content).hexdigest(), pixels.numel(), width, height, len(pixels) == 1
    )


class _Known:
    """The pictures of one source that were decoded before, by SHA-256, in the user's cache."""

    def __init__(self, where: str, max_pixels: int) -> None:
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        key = hashlib.sha256(f"{PIL.__version__} {max_pixels} {where}".encode()).hexdigest()
        self.file = base / "renshu" / "pictures" / f"{key[:16]}.json"
        self.pictures: dict[str, tuple[int, int, bool]] = {}
        try:
            stored = json.loads(self.file.read_bytes())
            self.pictures = {key: (int(w), int(h), bool(g)) for key, (w, h, g) in stored.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # a cache: without it everything is decoded again

    def keep(self, facts: list[Facts]) -> None:
        """Write what was found, if there is anything new and the cache can be written."""
        found = {one.sha256: (one.width, one.height, one.grey) for one in facts}
        if found.keys() == self.pictures.keys():
            return
        new = self.file.with_suffix(f".{os.getpid()}")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(json.dumps(found))
            new.replace(self.file)
        except OSError:
            pass
