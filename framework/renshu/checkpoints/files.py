"""The two kinds of file in a checkpoint, JSON and safetensors: read with care, written durably."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from renshu.checkpoints.views import NATIVE, buffer
from renshu.errors import CheckpointError

MAX_JSON = 256 << 20
MAX_HEADER = 64 << 20
_MAX_DIGITS = 64
_CHUNK = 16 << 20
_ATTEMPTS = 3
_BINARY = getattr(os, "O_BINARY", 0)
_DTYPES = {name: dtype for dtype, name in NATIVE.items()}


def parse_json(data: bytes, where: object, limit: int = MAX_JSON) -> Any:
    """Strict JSON: no twin keys, NaN, infinities, endless integers, deep nesting, other encodings.

    Raises:
        CheckpointError: naming `where`.
    """
    try:
        if len(data) > limit:
            raise ValueError(f"{len(data)} bytes, more than {limit}")
        return json.loads(
            data.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_short_int,
            parse_float=_finite,
            object_pairs_hook=_no_twins,
        )
    except RecursionError as e:
        raise CheckpointError("JSON nested too deep", where=where) from e
    except ValueError as e:  # includes JSONDecodeError and UnicodeDecodeError
        raise CheckpointError(f"not JSON that renshu wrote: {e}", where=where) from e


def dump_json(tree: Any, limit: int = MAX_JSON, indent: int | None = None) -> bytes:
    """JSON as ASCII bytes; CheckpointError if our own reader would refuse its size."""
    text = json.dumps(tree, allow_nan=False, indent=indent).encode()
    if len(text) > limit:
        raise CheckpointError(
            f"{len(text):,} bytes of JSON, more than {limit:,}",
            mend="keep long lists of numbers as tensors or arrays",
        )
    return text


def pack(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[memoryview]:
    """A safetensors file as pieces to write one after the other; tensors are not copied."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    # The largest elements first, so that every tensor is aligned without padding.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    offset = 0
    for name in names:
        tensor = tensors[name]
        end = offset + tensor.numel() * tensor.element_size()
        entry = {"dtype": NATIVE[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = {**entry, "data_offsets": [offset, end]}
        offset = end
    text = dump_json(header, MAX_HEADER - 8)
    text += b" " * (-len(text) % 8)
    yield memoryview(len(text).to_bytes(8, "little") + text)
    for name in names:
        data = buffer(tensors[name])
        for start in range(0, len(data), _CHUNK):
            yield data[start : start + _CHUNK]


@contextlib.contextmanager
def _regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; links, pipes and devices are refused before they can block."""
    flags = os.O_RDONLY | _BINARY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise CheckpointError("not a regular file", where=path)
        with os.fdopen(os.open(path, flags), "rb") as file:
            yield file
    except FileNotFoundError as e:
        raise CheckpointError("a file of the checkpoint is missing", where=path) from e
    except OSError as e:
        raise CheckpointError(f"cannot be read: {e.strerror}", where=path) from e


def read_file(path: Path, limit: int | None = None) -> bytearray:
    """A regular file's bytes.

    Raises:
        CheckpointError: missing, unreadable, not a regular file, or over `limit` bytes.
    """
    with _regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise CheckpointError(f"{size} bytes, more than {limit}", where=path)
        data = bytearray(size)
        if file.readinto(data) != size:
            raise CheckpointError("the file became shorter while it was read", where=path)
        return data


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str, int]:
    """A safetensors file: its tensors, each in memory of its own, its SHA-256 and its size.

    Raises:
        CheckpointError: the header does not describe exactly the bytes that follow it.
    """
    with _regular(path) as file:
        digest = hashlib.sha256()
        size = os.fstat(file.fileno()).st_size
        try:
            text = _read_header(file, size, digest)
            tensors = _allocate(parse_json(text, path, MAX_HEADER), size - 8 - len(text))
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as e:
            raise CheckpointError(f"not a safetensors file of renshu: {e}", where=path) from e
        for data in map(buffer, tensors.values()):
            for start in range(0, len(data), _CHUNK):
                piece = data[start : start + _CHUNK]
                if file.readinto(piece) != len(piece):
                    raise CheckpointError("the file became shorter while it was read", where=path)
                digest.update(piece)
        return tensors, digest.hexdigest(), size


def _read_header(file: BufferedReader, size: int, digest: Any) -> bytes:
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if size < 8 or length > min(size - 8, MAX_HEADER):
        raise ValueError("the header is longer than the file or the limit")
    text = file.read(length)
    digest.update(head + text)
    return text


def _allocate(header: dict[str, Any], size: int) -> dict[str, Tensor]:
    """Empty tensors in file order; by their header they fill `size` bytes exactly."""
    header.pop("__metadata__", None)
    tensors, position = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if any(type(n) is not int or n < 0 for n in (start, end, *shape)):
            raise ValueError(f"{name!r} has a shape or offset that is no count")
        if start != position or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name!r} leaves a gap, overlaps or has the wrong size")
        if end > size:
            raise ValueError(f"{name!r} ends after the file")
        tensors[name] = torch.empty(shape, dtype=dtype)
        position = end
    if position != size:
        raise ValueError(f"{position} bytes of tensors are described, {size} are there")
    return tensors


def digest_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a regular file, in constant memory."""
    with _regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return digest, file.tell()


def write_file(folder: Path, name: str, pieces: Iterable[memoryview] | bytes) -> dict[str, Any]:
    """Write `folder/name` so that it survives a power cut, and return its SHA-256 and size.

    After a failed fsync the system may have dropped the pages and call the next fsync a success
    (PostgreSQL, 2018): the file is written anew under another name, three times at most.

    Args:
        pieces: the content, whole or in pieces; the pieces are kept until it is written.

    Raises:
        OSError: it cannot be written.
    """
    pieces = [memoryview(pieces)] if isinstance(pieces, bytes) else list(pieces)
    digest = hashlib.sha256()  # of the last attempt
    for attempt in range(_ATTEMPTS):
        draft = folder / f".{name}.{attempt}"
        digest = hashlib.sha256()
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o644)
        try:
            for piece in pieces:
                digest.update(piece)
                _write_all(descriptor, piece)
            durable = _sync(descriptor, last=attempt == _ATTEMPTS - 1)
        finally:
            os.close(descriptor)
        if durable:
            draft.rename(folder / name)
            break
        draft.unlink()
    return {"sha256": digest.hexdigest(), "bytes": sum(map(len, pieces))}


def _sync(descriptor: int, last: bool) -> bool:
    try:
        os.fsync(descriptor)
    except OSError:
        if last:
            raise
        return False
    return True


def _write_all(descriptor: int, piece: memoryview) -> None:
    while len(piece):
        piece = piece[os.write(descriptor, piece) :]


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where a folder can be opened."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a JSON number")


def _short_int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twin!r} stands twice")
    return result
