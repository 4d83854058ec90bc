"""The files of a checkpoint, JSON and safetensors: read with care, written durably."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from renshu.errors import CheckpointError

MAX_JSON = 256 << 20
MAX_HEADER = 64 << 20
_GUARDS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def parse_json(data: bytes, where: object, limit: int = MAX_JSON) -> dict[str, Any]:
    """A JSON object, read strictly: no twin keys, NaN, infinities, endless integers, deep nesting.

    Raises:
        CheckpointError: naming `where`.
    """
    try:
        if len(data) > limit:
            raise ValueError(f"{len(data)} bytes, more than {limit}")
        hooks = {"parse_constant": _finite, "parse_float": _finite, "object_pairs_hook": _no_twins}
        tree = json.loads(data.decode("utf-8", "surrogatepass"), **hooks)
        if type(tree) is not dict:
            raise ValueError("not an object")
        return tree
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"not JSON that renshu wrote: {e}", where=where) from e


def dump_json(tree: Any, limit: int = MAX_JSON, indent: int | None = None) -> bytes:
    """JSON in UTF-8; CheckpointError if our own reader would refuse its size."""
    text = json.dumps(tree, allow_nan=False, indent=indent, ensure_ascii=False)
    data = text.encode("utf-8", "surrogatepass")  # a file name may hold half a surrogate pair
    if len(data) > limit:
        what = f"{len(data):,} bytes of JSON, more than {limit:,}"
        raise CheckpointError(what, mend="keep long lists of numbers as tensors or arrays")
    return data


def parse_tensors(data: bytes, where: object) -> dict[str, Tensor]:
    """The tensors of a safetensors file, each in memory of its own; CheckpointError if it lies."""
    end = 8 + int.from_bytes(data[:8], "little")
    parse_json(data[8:end], where, MAX_HEADER)  # for twin keys, which the library lets pass
    try:
        return load(data)
    except (SafetensorError, LookupError, ValueError, RuntimeError, OverflowError) as e:
        raise CheckpointError(f"not a safetensors file of renshu: {e}", where=where) from e


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file; links, pipes and devices are refused and do not block.

    Raises:
        CheckpointError: missing, unreadable or not a regular file.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _GUARDS)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise CheckpointError("not a regular file", where=path)
            yield file
    except OSError as e:
        raise CheckpointError(f"cannot be read: {e.strerror}", where=path) from e


def write_file(
    folder: Path, name: str, write: Callable[[Path], object], attempts: int = 3
) -> dict[str, Any]:
    """Make `folder/name` so that it survives a power cut, and return its SHA-256 and size.

    After a failed fsync the system may have dropped the pages and call the next fsync a success
    (PostgreSQL, 2018): the file is deleted and written anew.

    Args:
        write: writes the whole file to the path that it is given.
        attempts: how often the file is written at most.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    path = folder / name
    write(path)
    path.chmod(folder.stat().st_mode & 0o666)  # safetensors writes for its owner alone
    with path.open("r+b") as file:
        digest, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
        try:
            os.fsync(file.fileno())
        except OSError:
            if attempts == 1:
                raise
            path.unlink()
            return write_file(folder, name, write, attempts - 1)
    return {"sha256": digest, "bytes": size}


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where a folder can be opened."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"a key stands twice among {sorted(result)[:9]}")
    return result
