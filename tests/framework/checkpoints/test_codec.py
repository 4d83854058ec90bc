"""One codec for all state: what goes in comes out, or is refused with its path."""

from __future__ import annotations

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

from renshu.checkpoints.codec import encode
from renshu.errors import CheckpointError

from .helpers import same, trip

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
