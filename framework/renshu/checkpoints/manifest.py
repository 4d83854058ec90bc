"""The manifest: what a checkpoint says of itself, and what makes it valid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renshu.checkpoints.codec import decode
from renshu.checkpoints.files import dump_json, parse_json, read_file
from renshu.errors import CheckpointError

FORMAT = 1
MANIFEST, STATE = "manifest.json", "state.json"
MODEL_TENSORS, STATE_TENSORS = "model.safetensors", "state.safetensors"
FILES = (MODEL_TENSORS, STATE_TENSORS, STATE)
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""From an older format's number to a function that turns its state into the next format's."""
_MAX_MANIFEST = 1 << 20
_OPEN = b"0" * 64


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself. Order is by (step, batches), never by `created`.

    `samples` are consumed training samples, `tensors` the stored ones, `files` SHA-256 and bytes
    by name, `meta` whatever else (metrics, seed, machine), `seal` the SHA-256 of the manifest.
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
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)
    seal: str = ""


def read_manifest(path: str | Path) -> Manifest:
    """The manifest alone, checked against its seal; the other files are not looked at.

    Raises:
        CheckpointError: there is none, it was altered, or its format is newer than this renshu.
    """
    path = Path(path)
    if path.is_file():
        raise CheckpointError(
            "this is a file, a checkpoint of renshu is a folder; no pickle is ever opened",
            where=path,
            allowed=f"a folder with {', '.join((*FILES, MANIFEST))}",
        )
    file = path / MANIFEST
    text = bytes(read_file(file, _MAX_MANIFEST))
    tree = parse_json(text, file, _MAX_MANIFEST)
    number = tree.get("format") if type(tree) is dict else None
    if type(number) is not int or number < 1:
        raise CheckpointError("not the manifest of a checkpoint", where=file)
    if number > FORMAT:
        raise CheckpointError(
            f"the checkpoint has format {number}, this renshu reads up to {FORMAT}",
            where=file,
            mend="pip install --upgrade renshu",
        )
    if number < FORMAT and number not in MIGRATIONS:
        raise CheckpointError(f"no migration from format {number}", where=file)
    wrong = wrong_field(tree)
    if wrong is not None or _seal(text.replace(tree["seal"].encode(), _OPEN, 1)) != tree["seal"]:
        raise CheckpointError(
            f"{MANIFEST} is not as it was written: {wrong or 'its seal does not fit'}", where=file
        )
    return Manifest(**{**tree, "meta": decode(tree["meta"], {}, "meta")})


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as sealed JSON: its SHA-256, taken with 64 zeros in the place of the seal."""
    tree = {**vars(manifest), "seal": _OPEN.decode()}
    text = dump_json(tree, _MAX_MANIFEST, indent=2)
    return text.replace(_OPEN, _seal(text).encode())


def wrong_field(tree: dict[str, Any]) -> str | None:
    """The first key of a manifest that is missing, unknown or not of its kind, or None."""
    known = vars(Manifest())
    for name in sorted(tree.keys() | known.keys()):
        if name not in tree or type(tree[name]) is not type(known.get(name)):
            return name
        if type(tree[name]) is int and not 0 <= tree[name] < 1 << 62:
            return name
    files = tree["files"]
    whole = set(files) == set(FILES) and all(map(_is_file_entry, files.values()))
    return None if whole else "files"


def _is_file_entry(entry: Any) -> bool:
    known = type(entry) is dict and set(entry) == {"sha256", "bytes"}
    return known and type(entry["sha256"]) is str and type(entry["bytes"]) is int


def _seal(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
