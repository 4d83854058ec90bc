"""A checkpoint on disk: a folder with safetensors and JSON, valid only as a whole.

step=000120/
    model.safetensors   the model's state_dict under its own names
    state.safetensors   all other tensors
    state.json          everything that is not a tensor, and how tensors fit in
    manifest.json       format number, progress, SHA-256 and size of the files; written last
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from renshu import __version__
from renshu.checkpoints import publish
from renshu.checkpoints.codec import decode, encode
from renshu.checkpoints.files import dump_json, opened, parse_json, parse_tensors, write_file
from renshu.checkpoints.manifest import FILES, FORMAT, MANIFEST, MIGRATIONS, Manifest, read_manifest
from renshu.errors import CheckpointError

MODEL_TENSORS, STATE_TENSORS, STATE = FILES
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Snapshot:
    """State copied to CPU memory: later training steps do not change it."""

    manifest: Manifest
    tree: dict[str, Any]
    model: dict[str, Tensor]
    state: dict[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in (*self.model.values(), *self.state.values()))


def snapshot(state: Mapping[str, Any], **manifest: Any) -> Snapshot:
    """Copy all state to CPU memory.

    Args:
        state: what to save; `state["model"]` is the model's state_dict.
        manifest: fields of `Manifest`, such as `step=120, batches=480, meta={"loss": 0.1}`.

    Raises:
        CheckpointError: something cannot be saved, with its path.
    """
    tree: dict[str, Any] = {"model": None}
    model: dict[str, Tensor] = {}
    rest = dict(state)
    if (weights := rest.pop("model", None)) is not None:
        hidden = getattr(weights, "_metadata", None)  # where torch keeps its modules' versions
        versions, _ = encode(hidden and dict(hidden), "model metadata")
        named, model = encode(dict(weights), "", copy=True, separate=True)
        tree["model"] = {"weights": named, "metadata": versions}
    tree["state"], tensors = encode(rest, "", copy=True)
    meta, unfit = encode(manifest.pop("meta", {}), "meta")
    if unfit:
        raise CheckpointError("the manifest's 'meta' cannot be saved: it holds tensors")
    made = Manifest(
        renshu=__version__,
        torch=str(torch.__version__),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        tensors=len(model) + len(tensors),
        meta=meta,
        **manifest,
    )
    return Snapshot(made, tree, model, tensors)


def write(
    snapshot: Snapshot, path: str | Path, before_publish: Callable[[], None] | None = None
) -> Path:
    """Write a checkpoint folder in one step: at no moment is there a half-written one.

    Args:
        path: the new folder; one that exists is replaced.
        before_publish: called when all data is durable, before the checkpoint becomes valid.

    Raises:
        CheckpointError: not enough space, no permission, ...; nothing that was there is lost.
    """
    path = Path(path)
    replaceable = path.is_dir() and ((path / MANIFEST).exists() or not any(path.iterdir()))
    if path.is_symlink() or (path.exists() and not replaceable):
        raise CheckpointError("something is there that is no checkpoint", where=path)
    tree, tied = dump_json(snapshot.tree), {**_aliases(snapshot), "format": "pt"}
    writes: dict[str, Callable[[Path], object]] = {
        MODEL_TENSORS: lambda file: save_file(snapshot.model, file, tied),
        STATE_TENSORS: lambda file: save_file(snapshot.state, file),
        STATE: lambda file: file.write_bytes(tree),
    }
    with publish.replacing(path, snapshot.nbytes + len(tree)) as draft:
        files = {name: write_file(draft, name, content) for name, content in writes.items()}
        if before_publish is not None:
            before_publish()
        text = replace(snapshot.manifest, files=files).sealed()
        write_file(draft, MANIFEST, lambda file: file.write_bytes(text))
    return path


def verify(path: str | Path) -> Manifest:
    """Check every file against the manifest: present, regular, size, SHA-256, none besides.

    Raises:
        CheckpointError: naming the first file that is not as it was written.
    """
    return _load(Path(path), keep=())[0]


def read(path: str | Path) -> dict[str, Any]:
    """Verify a checkpoint and return its state, all tensors in CPU memory.

    Raises:
        CheckpointError: naming what is missing, altered or not understood.
    """
    manifest, data = _load(Path(path), keep=FILES)
    where, tree = Path(path) / STATE, data[STATE]
    state = _known(decode(tree.get("state"), data[STATE_TENSORS], where), where)
    if tree.get("model") is not None:
        state = {"model": _weights(data, where), **state}
    for number in range(manifest.format, FORMAT):
        state = MIGRATIONS[number](state)
    return state


def read_weights(path: str | Path) -> OrderedDict[str, Any]:
    """Verify a checkpoint and return only the model's state_dict, in CPU memory."""
    _, data = _load(Path(path), keep=(MODEL_TENSORS, STATE))
    if data[STATE].get("model") is None:
        raise CheckpointError("the checkpoint holds no model", where=path)
    return _weights(data, Path(path) / STATE)


def listing(folder: str | Path) -> list[tuple[Path, Manifest]]:
    """The checkpoints in a folder by recorded (step, batches), oldest first.

    Temporaries and folders without a readable manifest are left out; the files are not verified.
    A checkpoint set aside by a process that died while replacing it is listed where it lies.
    """
    found = []
    for path in publish.candidates(Path(folder)):
        try:
            found.append((path, read_manifest(path)))
        except CheckpointError as error:
            _log.debug("%s is no checkpoint: %s", path, error)
    return sorted(found, key=lambda item: (item[1].step, item[1].batches, item[0].name))


def newest(folder: str | Path) -> Path | None:
    """The newest checkpoint that verifies, or None; a broken newer one is named in a warning."""
    for path, _ in reversed(listing(folder)):
        try:
            verify(path)
            return path
        except CheckpointError as error:
            _log.warning("%s is damaged and passed over: %s", path, error)
    return None


def _aliases(snapshot: Snapshot) -> dict[str, str]:
    """Names of tied weights and the name each is stored under, as safetensors' own tools say it."""
    weights = (snapshot.tree["model"] or {"weights": {}})["weights"]
    return {
        name: ref["name"]
        for name, ref in weights.items()
        if type(ref) is dict and ref.get("$") == "tensor" and ref["name"] != name
    }


def _weights(data: dict[str, dict[str, Any]], where: Path) -> OrderedDict[str, Any]:
    model = _known(decode(data[STATE]["model"], data[MODEL_TENSORS], where), where)
    weights = OrderedDict(_known(model.get("weights"), where))
    if model.get("metadata") is not None:
        weights._metadata = OrderedDict(_known(model["metadata"], where))  # type: ignore[attr-defined]
    return weights


def _known(tree: Any, where: Path) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise CheckpointError("not the state of a checkpoint", where=where)
    return tree


def _load(path: Path, keep: tuple[str, ...]) -> tuple[Manifest, dict[str, dict[str, Any]]]:
    """Verify a folder and return what is in the files of `keep`, each read once."""
    manifest = read_manifest(path)
    with opened(path / MANIFEST):  # else it is just being replaced
        extra = sorted({file.name for file in path.iterdir()} - {*FILES, MANIFEST, ".DS_Store"})
    if extra:
        raise CheckpointError("renshu did not write this file", where=path / extra[0])
    found: dict[str, dict[str, Any]] = {}
    for name, entry in manifest.files.items():
        where = path / name
        with opened(where) as file:
            data = file.read() if name in keep else b""
            digest = hashlib.sha256(data) if name in keep else hashlib.file_digest(file, "sha256")
            size = file.tell()
        if entry != {"sha256": digest.hexdigest(), "bytes": size}:
            what = f"{name} is not as it was written"
            mend = "take another checkpoint; this one was cut short or altered"
            raise CheckpointError(what, where=where, allowed=entry, mend=mend)
        if name in keep:
            found[name] = (parse_json if name == STATE else parse_tensors)(data, where)
    return manifest, found
