"""Which series a benchmark runs on, and which of them may be used for tuning."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from renshu.errors import DataError
from renshu_tasks.anomaly.bench import planted
from renshu_tasks.anomaly.demo import NAMES, demo_file, load_demo
from renshu_tasks.anomaly.formats import UCR, windows_file
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.readers import TABLES, read_series
from renshu_tasks.anomaly.series import Series

Part = Literal["evaluation", "tuning"]

TUNING_SHARE = 0.2
SMD = ("train", "test", "test_label")


@dataclass(frozen=True)
class Source:
    """Where a series is, in words that a process can be given; nothing is read yet.

    Attributes:
        name: unique within the benchmark.
        group: the data set that it belongs to.
        kind: embedded, planted, file, or one of a folder as SMD's.
        where: the file or folder, or "base/kind" of a planted series.
        part: tuning series may be used to choose a detector or its parameters; evaluation not.
        stamp: SHA-256 of what is read: with other data or labels, jobs are other jobs.
    """

    name: str
    group: str
    kind: Literal["embedded", "planted", "file", "smd"]
    where: str
    part: Part
    stamp: str

    def load(self) -> Series:
        """Read or make the series. Raises DataError for what cannot be used."""
        if self.kind == "embedded":
            return load_demo(self.where)
        if self.kind == "planted":
            base, _, kind = self.where.partition("/")
            return planted.plant(base, kind)
        options = DataOptions(series=self.name.rpartition("/")[2] if self.kind == "smd" else None)
        return read_series(self.where, options)


def embedded() -> list[Source]:
    """Real labelled series that packages ship, and real normal ones with planted events."""
    found = [
        Source(name, "embedded", "embedded", name, "evaluation", _digest(demo_file(name)))
        for name in NAMES
    ]
    parts: dict[Part, tuple[str, ...]] = {
        "evaluation": planted.EVALUATION,
        "tuning": planted.TUNING,
    }
    for part, bases in parts.items():
        found += [
            Source(f"{base}_{kind}", f"planted {kind}", "planted", f"{base}/{kind}", part, "0")
            for base in bases
            for kind in planted.KINDS
        ]
    return found


def folder(path: Path) -> list[Source]:
    """All series below a folder, or a single file. Raises DataError if there is none."""
    if not path.exists():
        raise DataError("there is no such file or folder", where=path)
    found = [_file(path, path.parent)] if path.is_file() else list(_below(path))
    if not found:
        allowed = ".csv, .parquet, UCR names that end in _TRAIN_FIRST_LAST.txt, folders as SMD's"
        raise DataError("there is no series here", where=path, allowed=allowed)
    return found


def part_of(name: str) -> Part:
    """A fifth of the names is for tuning, by their SHA-256: the same on every machine."""
    share = hashlib.sha256(name.encode()).digest()[0] / 256
    return "tuning" if share < TUNING_SHARE else "evaluation"


def _below(root: Path) -> Iterator[Source]:
    inside: list[Path] = []
    for first in sorted(root.rglob("train")):
        machine = first.parent
        if all((machine / kind).is_dir() for kind in SMD):
            inside.append(machine)
            for file in sorted(first.glob("*.txt")):
                name = f"{machine.relative_to(root.parent).as_posix()}/{file.stem}"
                stamp = _digest(*(machine / kind / file.name for kind in SMD))
                yield Source(name, machine.name, "smd", str(machine), part_of(name), stamp)
    for file in sorted(root.rglob("*")):
        known = file.suffix.lower() in TABLES or (file.suffix == ".txt" and UCR.match(file.stem))
        if known and file.is_file() and not any(machine in file.parents for machine in inside):
            yield _file(file, root)


def _file(file: Path, root: Path) -> Source:
    name = file.relative_to(root).with_suffix("").as_posix()
    windows = windows_file(file)
    stamp = _digest(file) if windows is None else _digest(file, windows)
    return Source(name, file.parent.name, "file", str(file), part_of(name), stamp)


def _digest(*files: Path) -> str:
    total = hashlib.sha256()
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()[:16]
