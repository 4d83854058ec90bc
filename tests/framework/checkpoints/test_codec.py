"""One codec for all state: what goes in comes out, or is refused with its path."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from datetime import datetime
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from renshu.checkpoints.codec import decode, encode
from renshu.checkpoints.files import parse_json
from renshu.checkpoints.views import DTYPES, NATIVE
from renshu.errors import CheckpointError


def trip(tree: Any, **options: Any) -> Any:
    """Through the codec and through JSON text, as in a file."""
    encoded, tensors = encode(tree, **options)
    text = json.dumps(encoded, allow_nan=False).encode()
    assert all(tensor.is_contiguous() and tensor.dtype in NATIVE for tensor in tensors.values())
    return decode(parse_json(text, "test"), {name: t.clone() for name, t in tensors.items()})


def same(one: Any, other: Any) -> bool:
    """Equal in value, type and order; NaN equals NaN, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return (
            len(one) == len(other)
            and all(map(same, one, other))
            and all(map(same, one.values(), other.values()))
        )
    if isinstance(one, list | tuple | deque):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, set | frozenset):
        return sorted(map(repr, one)) == sorted(map(repr, other))
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, Tensor):
        return equal_bits(one, other)
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    return bool(one == other)


def equal_bits(one: Tensor, other: Tensor) -> bool:
    """The same dtype, shape and bit patterns."""
    if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
        return False
    one, other = (t.detach().resolve_conj().resolve_neg().contiguous() for t in (one, other))
    return torch.equal(*(t.reshape(-1, 1).view(torch.uint8) for t in (one, other)))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())  # lone surrogates as well
    | st.binary(max_size=30)
    | st.integers(-(10**400), 10**400)
)
keys = st.recursive(scalars, lambda inner: st.tuples(inner, inner), max_leaves=3)
tensors = st.sampled_from(
    [torch.tensor(3), torch.ones(2, 3).t(), torch.zeros(0, 2), torch.tensor([math.nan, -0.0])]
)
trees = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.lists(inner, max_size=3).map(deque)
        | st.dictionaries(st.text() | st.just("$"), inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3).map(OrderedDict)
        | st.frozensets(keys, max_size=4)
        | st.sets(keys, max_size=4)
        | st.lists(st.integers(), max_size=20)
        | st.lists(st.floats(), max_size=20)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees)
def test_any_tree_comes_back(tree: Any) -> None:
    assert same(trip(tree), tree)


LEAVES: dict[str, Any] = {
    "Counter with int keys": Counter({5: 2, 2: 1}),
    "OrderedDict": OrderedDict([(1, "a"), ("1", "b")]),
    "defaultdict": defaultdict(list, {3: [1]}),
    "defaultdict of nothing": defaultdict(None, {3: 4}),
    "deque": deque([1, 2, 3], maxlen=3),
    "keys that JSON would merge": {1: "int", "1": "str", None: 1, 1.5: 2},
    "its own marker": {"$": "tensor", "name": "x"},
    "Path": Path("a/b ü.txt"),
    "size": torch.Size([2, 3]),
    "dtype": torch.float8_e4m3fn,
    "device": torch.device("cuda:1"),
    "huge int": -(3**9000),
    "infinities": [math.inf, -math.inf, math.nan, -0.0],
    "long bytes": bytes(range(256)) * 20,
    "random state": random.Random(3).getstate(),
    "numpy state": np.random.RandomState(3).get_state(),
    "numpy generator": np.random.default_rng(3).bit_generator.state,
    "python deep": [[[[[[[[[[1]]]]]]]]]],
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaf_comes_back(name: str) -> None:
    assert same(trip(LEAVES[name]), LEAVES[name])


def test_deque_and_defaultdict_keep_what_makes_them() -> None:
    assert trip(deque([1], maxlen=3)).maxlen == 3
    assert trip(defaultdict(int)).default_factory is int


ARRAYS: dict[str, Any] = {
    "float64": np.linspace(0, 1, 7),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "reversed": np.arange(5)[::-1],
    "big endian": np.arange(3, dtype=">f4"),
    "bool": np.array([True, False]),
    "uint32": np.arange(3, dtype=np.uint32),
    "complex128": np.array([1 + 2j]),
    "float16": np.array([0.1], dtype=np.float16),
    "longdouble": np.array([1.5], dtype=np.longdouble),
    "text": np.array(["ab", "c"]),
    "bytes": np.array([b"ab", b"c"]),
    "dates": np.array(["2026-01-01", "NaT"], dtype="M8[D]"),
    "spans": np.array([3], dtype="m8[ns]"),
    "empty": np.zeros((0, 3)),
    "0-dim": np.array(3.5),
    "read only": np.broadcast_to(np.arange(3), (2, 3)),
    "scalar": np.float32(0.1),
    "int scalar": np.int64(-3),
    "bool scalar": np.bool_(True),
    "text scalar": np.str_("ü"),
    "empty text scalar": np.str_(""),
    "date scalar": np.datetime64("2026-01-01"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_numpy_comes_back(name: str) -> None:
    assert same(trip(ARRAYS[name]), ARRAYS[name])


def _every_dtype() -> list[torch.dtype]:
    broken = {"complex32", "bcomplex32"}  # torch itself warns that these are experimental
    return [dtype for name, dtype in DTYPES.items() if name not in broken and "bits" not in name]


@pytest.mark.parametrize("dtype", _every_dtype(), ids=str)
def test_every_dtype_comes_back_bit_equal(dtype: torch.dtype) -> None:
    """All bit patterns of one byte, NaNs included; also 0-dim and transposed."""
    raw = torch.arange(256, dtype=torch.uint8).repeat(dtype.itemsize)
    raw = (raw % 2) if dtype == torch.bool else raw
    tensor = raw.view(dtype)
    for value in (tensor, tensor[3], tensor[:64].reshape(8, 8).t()):
        back = trip({"x": value})["x"]
        assert equal_bits(back, value)
        assert back.stride() == value.stride()


def _tensors() -> dict[str, Tensor]:
    base = torch.arange(24.0)
    wave = torch.randn(4, dtype=torch.complex64)
    return {
        "parameter": nn.Parameter(torch.ones(2)),
        "channels last": torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "sliced": base[::2],
        "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
        "expanded": torch.ones(3, 1).expand(3, 5),
        "windows": base.unfold(0, 3, 1),
        "empty": torch.zeros(0, 4),
        "0-dim": torch.tensor(2.5),
        "conjugated": wave.conj(),
        "negated": wave.conj().imag,
        "real part": wave.real,
        "0-dim conjugated": torch.tensor(1 + 2j).conj(),
        "requires grad": torch.ones(2, requires_grad=True) * 2,
        "column of a large matrix": torch.rand(500, 500)[:, 7],
    }


@pytest.mark.parametrize("name", _tensors())
def test_tensor_comes_back(name: str) -> None:
    value = _tensors()[name]
    torch.manual_seed(0)
    back = trip({"x": value})["x"]
    assert type(back) is Tensor
    assert not back.requires_grad
    assert equal_bits(back, value)


@pytest.mark.parametrize("name", ["channels last", "sliced", "permuted", "expanded", "windows"])
def test_stride_comes_back(name: str) -> None:
    value = _tensors()[name]
    assert trip({"x": value})["x"].stride() == value.stride()


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning")
def test_sparse_tensors_come_back() -> None:
    dense = torch.tensor([[0.0, 1.0, 0.0, 0.0], [2.0, 0.0, 0.0, 3.0]])
    twice = torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 4), check_invariants=True)
    found = trip({"coo": dense.to_sparse(), "twice": twice, "hybrid": dense.to_sparse(1)})
    assert torch.equal(found["coo"].to_dense(), dense)
    assert found["coo"].is_coalesced()
    assert not found["twice"].is_coalesced()
    assert torch.equal(found["twice"]._values(), twice._values())
    assert torch.equal(found["hybrid"].to_dense(), dense)
    layouts = {"csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc()}
    blocks = {"bsr": dense.to_sparse_bsr((1, 2)), "bsc": dense.to_sparse_bsc((2, 2))}
    for name, value in (layouts | blocks).items():
        back = trip({name: value})[name]
        assert back.layout == value.layout
        assert torch.equal(back.to_dense(), dense)


def test_views_of_one_storage_are_stored_once_and_share_again() -> None:
    base = torch.arange(20.0)
    tree = {"all": base, "middle": base[5:9], "matrix": base.view(4, 5).t(), "again": base}
    _, tensors = encode(tree)
    assert sum(t.nbytes for t in tensors.values()) == base.nbytes
    back = trip(tree)
    assert all(equal_bits(back[key], tree[key]) for key in tree)
    back["all"][5] = 99
    assert back["middle"][0] == back["matrix"][0, 1] == back["again"][5] == 99


def test_views_of_other_dtypes_share_again() -> None:
    base = torch.zeros(4, dtype=torch.float64)
    back = trip([base, base.view(torch.int32)[2:], base.view(torch.uint8)])
    back[0][1] = 1.0
    assert torch.equal(back[2].view(torch.float64), back[0])
    assert torch.equal(back[1], back[0].view(torch.int32)[2:])


def test_only_the_used_part_of_a_huge_storage_is_stored() -> None:
    huge = torch.zeros(10_000_000)
    for view in (huge[5_000_000:5_000_010], huge[::1_000_000], huge.view(1000, -1)[:, 3]):
        _, tensors = encode({"x": view})
        assert sum(t.nbytes for t in tensors.values()) == view.numel() * 4
    _, tensors = encode({"x": huge[:10], "y": huge[-10:]})
    assert sum(t.nbytes for t in tensors.values()) == 80
    _, tensors = encode({"x": torch.zeros(1).expand(10**12)})
    assert sum(t.nbytes for t in tensors.values()) == 4


def test_copies_do_not_follow_the_original() -> None:
    live = {"plain": torch.zeros(3), "view": torch.zeros(8)[::2], "array": np.zeros(3)}
    encoded, tensors = encode(live, copy=True)
    for value in live.values():
        value += 1
    back = decode(encoded, tensors)
    assert not back["plain"].any()
    assert not back["view"].any()
    assert not back["array"].any()


def test_names_that_collide_are_kept_apart() -> None:
    tree = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, "__metadata__": torch.full((1,), 2.0)}
    encoded, tensors = encode(tree, "")
    assert "__metadata__" not in tensors
    assert same(decode(encoded, tensors, ""), tree)


def test_plain_state_stays_plain_json() -> None:
    tree = {"step": 3, "name": "ü", "history": [0.5, 1.0], "on": True, "best": None, "in": {"a": 1}}
    assert encode(tree) == (tree, {})


class Colour(IntEnum):
    RED = 1


class MyDict(dict):  # type: ignore[type-arg]
    """A subclass would come back as a plain dict."""


def _refused() -> dict[str, Any]:
    return {
        "datetime": datetime(2026, 1, 1),
        "IntEnum": Colour.RED,
        "dict subclass": MyDict(),
        "function": len,
        "object": object(),
        "Linear": nn.Linear(1, 1),
        "numpy object": np.array([None]),
        "numpy record": np.zeros(2, dtype=[("a", "i4")]),
        "meta": torch.empty(2, device="meta"),
        "complex": 1 + 2j,
        "generator": torch.Generator(),
        "defaultdict of code": defaultdict(lambda: 1),
        "tensor subclass": torch.ones(1).as_subclass(type("Sub", (Tensor,), {})),
    }


@pytest.mark.parametrize("name", _refused())
def test_what_cannot_be_saved_is_refused_with_its_path(name: str) -> None:
    tree = {"callbacks": {"MyCallback": {"history": [1, 2, 3, _refused()[name]]}}}
    with pytest.raises(CheckpointError) as caught:
        encode(tree, "")
    assert caught.value.where == "callbacks.MyCallback.history[3]"
    assert caught.value.what.startswith("callbacks.MyCallback.history[3]: ")
    assert "Counter" in str(caught.value.allowed)


def test_the_message_names_the_type() -> None:
    with pytest.raises(CheckpointError, match=r"^a\.b\[0\]\['x y'\]: datetime cannot be saved"):
        encode({"b": [{"x y": datetime(2026, 1, 1)}]}, "a")


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*[Qq]uantiz:UserWarning")
def test_quantised_and_nested_tensors_are_refused_by_name() -> None:
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match="quantised tensor"):
        encode({"x": quantised})


def test_cycles_and_endless_depth_are_refused_by_name() -> None:
    ring: list[Any] = [1]
    ring.append({"again": ring})
    with pytest.raises(CheckpointError, match=r"state\[1\]\.again contains itself"):
        encode(ring)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(CheckpointError, match="nested too deep"):
        encode(deep)
    shared = [1]
    assert trip([shared, shared, {"a": shared}]) == [[1], [1], {"a": [1]}]


BAD_JSON = {
    "twin keys": b'{"a": 1, "a": 2}',
    "NaN": b'{"a": NaN}',
    "Infinity": b"[-Infinity]",
    "overflow": b"[1e999]",
    "huge int": b"[" + b"9" * 5000 + b"]",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "trailing": b"{} {}",
    "NUL": b"{}\0",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": "{}".encode("utf-16"),
    "empty": b"",
    "cut": b'{"a": [1, 2',
}


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


def test_the_codec_needs_no_numpy() -> None:
    code = (
        "import sys; sys.modules['numpy'] = None\n"
        "import torch\n"
        "from renshu.checkpoints.codec import decode, encode\n"
        "tree = {'a': torch.ones(2), 'b': (1, {2: b'x' * 5000})}\n"
        "back = decode(*encode(tree))\n"
        "assert back['b'] == tree['b'] and torch.equal(back['a'], tree['a'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
