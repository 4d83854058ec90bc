"""The manifest: what a checkpoint says of itself, and what makes it valid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renshu.checkpoints.codec import decode
from renshu.checkpoints.files import dump_json, opened, parse_json
from renshu.errors import CheckpointError

FORMAT = 1
MANIFEST = "manifest.json"
FILES = ("model.safetensors", "state.safetensors", "state.json")
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From an older format's number to a function that turns its state into the next format's."""
_LIMIT = 1 << 20
_OPEN = b"0" * 64


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself. Order is by (step, batches), never by `created`.

    `samples` are consumed training samples, `tensors` the stored ones, `files` SHA-256 and bytes
    by name, `meta` whatever else (metrics, seed, machine), `seal` the SHA-256 of the manifest.

    Raises:
        CheckpointError: a field is not of its kind, or negative.
    """

    format: int = FORMAT
    kind: str = "training"
    step: int = 0
    batches: int = 0
    samples: int = 0
    epoch: int = 0
    tensors: int = 0
    renshu: str = ""
    torch: str = ""
    created: str = ""
    files: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(FILES))
    meta: dict[str, Any] = field(default_factory=dict)
    seal: str = _OPEN.decode()

    def __post_init__(self) -> None:
        for name, kind in self.__annotations__.items():
            value = getattr(self, name)
            right = type(value).__name__ == kind.partition("[")[0]
            right = right and (kind != "int" or 0 <= value < 1 << 62)
            if not right or (name == "files" and value.keys() != set(FILES)):
                raise CheckpointError(f"{MANIFEST} cannot have this {name!r}", allowed=kind)

    def sealed(self) -> bytes:
        """JSON with its own SHA-256, which is taken with 64 zeros in the place of the seal."""
        text = dump_json({**vars(self)}, _LIMIT, indent=2)
        return text.replace(_OPEN, _seal(text).encode())


def read_manifest(path: str | Path) -> Manifest:
    """The manifest alone, checked against its seal; the other files are not looked at.

    Raises:
        CheckpointError: there is none, it was altered, or its format is newer than this renshu.
    """
    path = Path(path)
    if path.is_file():
        what = "this is a file, a checkpoint of renshu is a folder; no pickle is ever opened"
        raise CheckpointError(what, where=path, allowed=f"a folder with {', '.join(FILES)}")
    where = path / MANIFEST
    with opened(where) as file:
        text = file.read(_LIMIT + 1)
    tree = parse_json(text, where, _LIMIT)
    number = tree.get("format")
    if type(number) is int and not 0 < number <= FORMAT:
        what = f"the checkpoint has format {number}, this renshu reads up to {FORMAT}"
        raise CheckpointError(what, where=where, mend="pip install --upgrade renshu")
    seal = str(tree.get("seal")).encode()
    if _seal(text.replace(seal, _OPEN, 1)).encode() != seal or set(tree) != set(vars(Manifest())):
        raise CheckpointError(f"{MANIFEST} is not as it was written", where=where)
    return Manifest(**{**tree, "meta": decode(tree["meta"], {}, f"{where}: meta")})


def _seal(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
