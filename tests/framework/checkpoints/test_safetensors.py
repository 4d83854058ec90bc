"""Our safetensors files: read by the library, and never believed when read by us."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from renshu.checkpoints import read, snapshot, write
from renshu.checkpoints.files import parse_tensors
from renshu.errors import CheckpointError

from .helpers import equal_bits


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(shape: list[Any], start: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


BAD_HEADERS: dict[str, bytes] = {
    "length 2^63": _safetensors(b"{}", length=2**63),
    "length 0": _safetensors(b"", b""),
    "length past the end": _safetensors(b"{}", length=3),
    "NUL padding": _safetensors(b"{}\0\0"),
    "not UTF-8": _safetensors(b'{"\xff": 1}'),
    "a list": _safetensors([]),
    "twin keys": _safetensors(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"\0",
    ),
    "overlap": _safetensors({"a": _entry([2], 0, 8), "b": _entry([2], 4, 12)}, b"\0" * 12),
    "gap": _safetensors({"a": _entry([1], 0, 4), "b": _entry([1], 8, 12)}, b"\0" * 12),
    "does not start at 0": _safetensors({"a": _entry([1], 4, 8)}, b"\0" * 8),
    "rest": _safetensors({"a": _entry([1], 0, 4)}, b"\0" * 5),
    "too short": _safetensors({"a": _entry([2], 0, 8)}, b"\0" * 4),
    "negative shape": _safetensors({"a": _entry([-1, -1], 0, 4)}, b"\0" * 4),
    "overflowing shape": _safetensors({"a": _entry([2**62, 4], 0, 0)}),
    "empty but huge": _safetensors({"a": _entry([0, 2**62, 2**62], 0, 0)}),
    "float shape": _safetensors({"a": _entry([1.0], 0, 4)}, b"\0" * 4),
    "bool offset": _safetensors({"a": _entry([], False, 4)}, b"\0" * 4),
    "unknown dtype": _safetensors({"a": _entry([1], 0, 4, "F33")}, b"\0" * 4),
    "no offsets": _safetensors({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "huge file claimed": _safetensors({"a": _entry([2**40], 0, 2**42)}, b"\0" * 4),
}


# pains/security.md row 28
@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_safetensors_header_is_not_believed(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(BAD_HEADERS[name])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        parse_tensors(file.read_bytes(), file)


def test_a_header_over_our_limit_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("renshu.checkpoints.files.MAX_HEADER", 1000)
    file = tmp_path / "model.safetensors"
    file.write_bytes(_safetensors(b" " * 2000 + b"{}"))
    with pytest.raises(CheckpointError, match="2002 bytes, more than 1000"):
        parse_tensors(file.read_bytes(), file)


@pytest.mark.usefixtures("no_fsync")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.text(), st.lists(st.integers(0, 3), max_size=3), max_size=5))
def test_our_safetensors_are_what_safetensors_reads(
    tmp_path: Path, shapes: dict[str, list[int]]
) -> None:
    from safetensors.torch import load_file

    shapes.pop("__metadata__", None)
    kinds = [torch.float32, torch.uint8, torch.bfloat16, torch.int64, torch.bool]
    tensors = {
        name: torch.ones(shape, dtype=kinds[i % len(kinds)])
        for i, (name, shape) in enumerate(shapes.items())
    }
    path = write(snapshot({"model": tensors}), tmp_path / "c")
    for loaded in (load_file(path / "model.safetensors"), read(path)["model"]):
        assert loaded.keys() == tensors.keys()
        assert all(equal_bits(loaded[name], tensor) for name, tensor in tensors.items())
