"""Files of a logger that are either the old one or the new one, never half of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any


def write_atomically(path: Path, lines: Iterable[str]) -> None:
    """Write a text file beside `path`, make it durable and put it in `path`'s place."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def set_aside(path: Path) -> None:
    """Give what an earlier start left at `path` a number, so that nothing is lost or mixed."""
    if path.exists():
        names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(1))
        path.rename(next(name for name in names if not name.exists()))


def write_hparams(path: Path, params: Mapping[str, Any]) -> None:
    """Hyper-parameters as YAML that every safe loader reads."""
    import yaml

    write_atomically(path, [yaml.safe_dump(_plain(params), sort_keys=False, allow_unicode=True)])


def _plain(value: Any) -> Any:
    """The value in YAML's own types; anything else as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value if value is None else str(value)
