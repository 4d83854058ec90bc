"""Files of a logger that are either the old one or the new one, never half of it."""

from __future__ import annotations

import json
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
    """Hyper-parameters as YAML that every safe loader reads; what YAML has no type for as text."""
    import yaml

    plain = json.loads(json.dumps(params, default=str))
    write_atomically(path, [yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)])
