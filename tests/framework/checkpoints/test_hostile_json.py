"""JSON that renshu did not write is refused, whatever it says."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

from renshu.checkpoints.codec import decode
from renshu.checkpoints.files import parse_json
from renshu.errors import CheckpointError

from .helpers import trip

BAD_JSON = {
    "twin keys": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
    "Infinity": b'{"a": -Infinity}',
    "overflow": b'{"a": 1e999}',
    "huge int": b'{"a": ' + b"9" * 5000 + b"}",
    "deep": b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep object": b'{"a":' * 100_000,
    "trailing": b"{} {}",
    "NUL": b"{}\0",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": "{}".encode("utf-16"),
    "empty": b"",
    "a list": b"[]",
    "cut": b'{"a": [1, 2',
}


# pains/security.md row 29
@pytest.mark.parametrize("name", BAD_JSON)
def test_json_is_read_strictly(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_json(BAD_JSON[name], "folder/state.json")
    assert "folder/state.json" in str(caught.value)


def test_json_over_the_limit_is_not_parsed() -> None:
    with pytest.raises(CheckpointError, match="more than 10"):
        parse_json(b"[" * 100, "state.json", limit=10)


BAD_TREES: dict[str, Any] = {
    "unknown kind": {"$": "object", "value": 1},
    "kind that is no text": {"$": ["tensor"]},
    "missing tensor": {"$": "tensor", "name": "no", "dtype": "float32", "shape": [2]},
    "no name": {"$": "tensor", "dtype": "float32", "shape": [2]},
    "other dtype": {"$": "tensor", "name": "x", "dtype": "int32", "shape": [4]},
    "other shape": {"$": "tensor", "name": "x", "dtype": "float32", "shape": [2, 2]},
    "unknown dtype": {"$": "tensor", "name": "x", "dtype": "os.system", "shape": [4]},
    "stride too far": {"$": "tensor", "name": "x", "dtype": "float32", "shape": [4], "stride": [9]},
    "leaves storage": {
        "$": "tensor", "name": "b", "dtype": "float32", "shape": [4], "stride": [1], "offset": 1,
    },
    "negative offset": {
        "$": "tensor", "name": "b", "dtype": "float32", "shape": [1], "stride": [1], "offset": -1,
    },
    "negative stride": {
        "$": "tensor", "name": "b", "dtype": "float32", "shape": [2], "stride": [-1], "offset": 2,
    },
    "huge view": {
        "$": "tensor", "name": "b", "dtype": "uint8", "shape": [2], "stride": [2**61], "offset": 0,
    },
    "bytes beyond their storage": {
        "$": "bytes",
        "data": {
            "$": "tensor", "name": "b", "dtype": "uint8", "shape": [10**12], "stride": [0],
            "offset": 0,
        },
    },
    "factory that is code": {"$": "defaultdict", "factory": "os.system", "items": []},
    "numpy objects": {"$": "scalar", "dtype": "|O8", "hex": "00" * 8},
    "items that are no list": {"$": "tuple", "items": "abc"},
    "twin keys": {"$": "dict", "items": [[1, 2], [1, 3]]},
    "unhashable set": {"$": "set", "items": [[1]]},
    "bad base64": {"$": "bytes", "base64": "*"},
    "bad pairs": {"$": "dict", "items": [[1]]},
    "sparse out of range": {
        "$": "sparse_coo", "shape": [1], "coalesced": True,
        "parts": [
            {"$": "tensor", "name": "i", "dtype": "int64", "shape": [1, 1]},
            {"$": "tensor", "name": "v", "dtype": "float32", "shape": [1]},
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_TREES)
def test_json_that_does_not_fit_is_refused(name: str) -> None:
    tensors = {
        "x": torch.zeros(4),
        "b": torch.zeros(16, dtype=torch.uint8),
        "i": torch.tensor([[5]]),
        "v": torch.ones(1),
    }
    with pytest.raises(CheckpointError):
        decode({"a": [BAD_TREES[name]]}, tensors)


def test_a_tensor_that_belongs_nowhere_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'x' belongs nowhere"):
        decode({}, {"x": torch.zeros(1)})


# pains/security.md row 4
def test_names_of_code_in_state_are_only_text(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    tree = {"_instantiator": "os.system", "class_path": "os.system", "_target_": ["os.system"]}

    def spy(name: str, package: str | None = None) -> None:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr(importlib, "import_module", spy)
    before = set(sys.modules)
    assert trip(tree) == tree
    assert set(sys.modules) == before
