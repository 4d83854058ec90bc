"""A checkpoint on disk: a folder with safetensors and JSON, valid only as a whole.

step=000120/
    model.safetensors   the model's state_dict under its own names
    state.safetensors   all other tensors
    state.json          everything that is not a tensor, and how tensors fit in
    manifest.json       format number, progress, SHA-256 and size of the files; written last
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renshu.checkpoints import publish
from renshu.checkpoints.codec import decode, encode
from renshu.checkpoints.encoder import join
from renshu.checkpoints.files import (
    MAX_JSON,
    digest_file,
    dump_json,
    pack,
    parse_json,
    read_file,
    read_tensors,
    write_file,
)
from renshu.checkpoints.manifest import (
    FILES,
    FORMAT,
    MANIFEST,
    MIGRATIONS,
    MODEL_TENSORS,
    STATE,
    STATE_TENSORS,
    Manifest,
    dump_manifest,
    read_manifest,
    wrong_field,
)
from renshu.errors import CheckpointError

_IGNORED = {".DS_Store"}
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
        tensors = (*self.model.values(), *self.state.values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def snapshot(state: Mapping[str, Any], **manifest: Any) -> Snapshot:
    """Copy all state to CPU memory.

    Args:
        state: what to save; `state["model"]` is the model's state_dict.
        manifest: fields of `Manifest`, such as `step=120, batches=480, meta={"loss": 0.1}`.

    Raises:
        CheckpointError: something cannot be saved, with its path.
    """
    rest = {key: value for key, value in state.items() if key != "model"}
    tree: dict[str, Any] = {}
    tree["model"], model = _encode_model(state["model"]) if "model" in state else (None, {})
    tree["state"], tensors = encode(rest, "", copy=True)
    made = datetime.now(UTC).isoformat(timespec="seconds")
    defaults: dict[str, Any] = {
        "torch": str(torch.__version__),
        "renshu": _version(),
        "created": made,
    }
    defaults |= {"tensors": len(model) + len(tensors)}
    return Snapshot(_manifest({**defaults, **manifest}), tree, model, tensors)


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
    if path.is_symlink() or (path.exists() and not _may_replace(path)):
        raise CheckpointError("something is there that is no checkpoint", where=path)
    tree = dump_json(snapshot.tree)
    with publish.replacing(path, snapshot.nbytes + len(tree)) as draft:
        aliases = _aliases(snapshot.tree["model"])
        files = {
            MODEL_TENSORS: write_file(
                draft, MODEL_TENSORS, pack(snapshot.model, {**aliases, "format": "pt"})
            ),
            STATE_TENSORS: write_file(draft, STATE_TENSORS, pack(snapshot.state, {})),
            STATE: write_file(draft, STATE, tree),
        }
        if before_publish is not None:
            before_publish()
        write_file(draft, MANIFEST, dump_manifest(replace(snapshot.manifest, files=files)))
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
    path = Path(path)
    manifest, data = _load(path, keep=FILES)
    tree = _tree(path, data)
    with _naming(path / STATE):
        state = decode(tree["state"], data[STATE_TENSORS], "")
        if tree["model"] is not None:
            state = {"model": _decode_model(tree["model"], data[MODEL_TENSORS]), **state}
    for number in range(manifest.format, FORMAT):
        state = MIGRATIONS[number](state)
    return state


def read_weights(path: str | Path) -> dict[str, Any]:
    """Verify a checkpoint and return only the model's state_dict, in CPU memory."""
    path = Path(path)
    _, data = _load(path, keep=(MODEL_TENSORS, STATE))
    tree = _tree(path, data)
    if tree["model"] is None:
        raise CheckpointError("the checkpoint holds no model", where=path)
    with _naming(path / STATE):
        return _decode_model(tree["model"], data[MODEL_TENSORS])


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
    for path in reversed([path for path, _ in listing(folder)]):
        try:
            verify(path)
            return path
        except CheckpointError as error:
            _log.warning("%s is damaged and passed over: %s", path, error)
    return None


def _may_replace(path: Path) -> bool:
    return path.is_dir() and ((path / MANIFEST).exists() or not any(path.iterdir()))


def _manifest(fields: dict[str, Any]) -> Manifest:
    """A manifest that our reader takes; metrics and the like may be NaN, but no tensors."""
    meta, tensors = encode(fields.pop("meta", {}), "meta")
    made = Manifest(**fields, meta=meta)
    wrong = wrong_field(
        {**vars(made), "files": {name: {"sha256": "", "bytes": 0} for name in FILES}}
    )
    if tensors or wrong is not None:
        raise CheckpointError(f"the manifest's {wrong or 'meta'!r} cannot be saved")
    return made


def _encode_model(weights: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A state_dict under its own names, with the `_metadata` that torch hides in it."""
    hidden = getattr(weights, "_metadata", None)
    names = {join("model", name): name for name in weights}
    tree, tensors = encode(dict(weights), "model", copy=True, names=names)
    versions, _ = encode(hidden if hidden is None else dict(hidden), "model metadata")
    return {"weights": tree, "metadata": versions}, tensors


def _decode_model(tree: Any, tensors: Mapping[str, Tensor]) -> OrderedDict[str, Any]:
    weights = decode(tree["weights"], tensors, "model")
    versions = decode(tree["metadata"], {}, "model metadata")
    if not isinstance(weights, dict) or not isinstance(versions, dict | None):
        raise CheckpointError("the model's state is not a state_dict", where="model")
    weights = OrderedDict(weights)
    if versions is not None:
        weights._metadata = OrderedDict(versions)  # type: ignore[attr-defined]
    return weights


def _aliases(model: Any) -> dict[str, str]:
    """Names of tied weights and the name each is stored under, as safetensors' own tools say it."""
    weights = {} if model is None else model["weights"]
    return {
        name: ref["name"]
        for name, ref in weights.items()
        if type(ref) is dict and ref.get("$") == "tensor" and ref["name"] != name
    }


def _load(path: Path, keep: tuple[str, ...]) -> tuple[Manifest, dict[str, Any]]:
    """Verify a folder and return what is in the files of `keep`, each read once."""
    found = read_manifest(path)
    extra = sorted({file.name for file in path.iterdir()} - {*FILES, MANIFEST} - _IGNORED)
    if extra:
        raise CheckpointError("renshu did not write this file", where=path / extra[0])
    data: dict[str, Any] = {}
    for name, entry in found.files.items():
        file = path / name
        if name not in keep:
            digest, size = digest_file(file)
        elif name == STATE:
            text = bytes(read_file(file, MAX_JSON))
            digest, size = hashlib.sha256(text).hexdigest(), len(text)
            data[name] = text
        else:
            data[name], digest, size = read_tensors(file)
        if digest != entry["sha256"] or size != entry["bytes"]:
            raise CheckpointError(
                f"{name} is not as it was written",
                where=file,
                allowed=f"{entry['bytes']} bytes with SHA-256 {entry['sha256']}",
                mend="take another checkpoint; this one was cut short or altered",
            )
    return found, data


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Name the file in errors that know only a path within the state."""
    try:
        yield
    except CheckpointError as error:
        where = f"{file}: {error.where}"
        raise CheckpointError(error.what, where=where, allowed=error.allowed) from error


def _tree(path: Path, data: dict[str, Any]) -> dict[str, Any]:
    tree = parse_json(data[STATE], path / STATE)
    parts = tree if type(tree) is dict else {}
    if set(parts) != {"model", "state"} or type(parts["state"]) is not dict:
        raise CheckpointError("not the state of a checkpoint", where=path / STATE)
    model = parts["model"]
    if model is not None and (type(model) is not dict or set(model) != {"weights", "metadata"}):
        raise CheckpointError("not the state of a checkpoint", where=path / STATE)
    return parts


@cache
def _version() -> str:
    try:
        return metadata.version("renshu")
    except metadata.PackageNotFoundError:
        return ""
