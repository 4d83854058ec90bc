"""State to JSON and tensors, and back: the one codec for everything a checkpoint holds.

Plain scalars, lists and dicts with text keys stay plain JSON. Everything else becomes an object
with the key `"$"` that names its kind, for example `{"$": "tuple", "items": [1, 2]}`; a tensor
becomes a reference to an entry of a safetensors file.
"""

from __future__ import annotations

import base64
import json
import math
import pathlib
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from renshu.checkpoints import views
from renshu.errors import CheckpointError

MAX_DEPTH = 100
"""How deep state may be nested."""
ALLOWED = (
    "None, bool, int, float, str, bytes, Path, list, tuple, dict, Counter, OrderedDict, "
    "defaultdict, deque, set, frozenset, numpy arrays and scalars, tensors, torch.Size, "
    "torch.dtype, torch.device"
)
_PLAIN_INT = 1 << 128
_INLINE_BYTES = 1024
_FACTORIES = {kind.__name__: kind for kind in (int, float, str, bool, list, dict, set, tuple)}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_NUMPY_KINDS = frozenset("biufcmMSU")


def encode(
    tree: Any, path: str = "state", *, copy: bool = False, names: Mapping[str, str] | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """Turn a tree of state into a JSON tree and the tensors it refers to.

    Args:
        tree: any nesting of the types in `ALLOWED`.
        path: what the tree is called in errors and tensor names.
        copy: whether the tensors are copies, untouched by later training steps.
        names: names of tensors by their path, stored with their full shape; else the path is the
            name, and an expanded dimension is stored once.

    Returns:
        The JSON tree and contiguous CPU tensors by name, all of a dtype that safetensors knows.

    Raises:
        CheckpointError: something cannot be saved, with its path, or the tree contains itself.
    """
    encoder = _Encoder(copy, names)
    return encoder.encode(tree, path), encoder.finish()


def decode(tree: Any, tensors: Mapping[str, Tensor], path: str = "state") -> Any:
    """Rebuild what `encode` was given; tensors that shared a storage share one again.

    The result uses the memory of `tensors` where it can.

    Raises:
        CheckpointError: the JSON tree is not one that `encode` writes, or does not fit the tensors.
    """
    decoder = _Decoder(tensors)
    result = decoder.decode(tree, path)
    unused = sorted(set(tensors) - decoder.views.used)
    if unused:
        raise CheckpointError(f"the tensor {unused[0]!r} belongs nowhere", where=path)
    return result


class _Encoder:
    def __init__(self, copy: bool, names: Mapping[str, str] | None) -> None:
        self.views = views.Writer(copy, names)
        self.active: set[int] = set()

    def finish(self) -> dict[str, Tensor]:
        return self.views.finish()

    def encode(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is str:
            return value if value.isascii() or _is_utf8(value) else _hex_text(value)
        if kind is bool or value is None:
            return value
        if kind is int:
            plain = -_PLAIN_INT < value < _PLAIN_INT
            return value if plain else {"$": "int", "hex": hex(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$": "float", "value": repr(value)}
        nested = _CONTAINERS.get(kind)
        if nested is not None:
            return self._descend(nested, value, path)
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        return self._leaf(value, path)

    def _descend(self, nested: Callable[..., Any], value: Any, path: str) -> Any:
        if id(value) in self.active:
            raise CheckpointError(f"{path} contains itself and cannot be saved", where=path)
        if len(self.active) >= MAX_DEPTH:
            raise CheckpointError("state is nested too deep", where=path, allowed=MAX_DEPTH)
        self.active.add(id(value))
        try:
            return nested(self, value, path)
        finally:
            self.active.discard(id(value))

    def items(self, values: Any, path: str) -> list[Any]:
        kinds = set(map(type, values))
        # Long runs of numbers (random.getstate() is 625 ints, a loss history) cost one pass in C.
        if kinds == {int} and min(values) > -_PLAIN_INT and max(values) < _PLAIN_INT:
            return list(values)
        if kinds == {float} and all(map(math.isfinite, values)):
            return list(values)
        return [self.encode(value, f"{path}[{i}]") for i, value in enumerate(values)]

    def pairs(self, value: Mapping[Any, Any], path: str) -> list[list[Any]]:
        return [
            [self.encode(key, f"{path} key {key!r}"), self.encode(item, join(path, key))]
            for key, item in value.items()
        ]

    def dict(self, value: dict[Any, Any], path: str) -> Any:
        if "$" not in value and all(map(_is_plain_key, value)):
            return {key: self.encode(item, join(path, key)) for key, item in value.items()}
        return {"$": "dict", "items": self.pairs(value, path)}

    def defaultdict(self, value: defaultdict[Any, Any], path: str) -> Any:
        factory = getattr(value.default_factory, "__name__", None)
        if value.default_factory is not None and (
            factory is None or _FACTORIES.get(factory) is not value.default_factory
        ):
            raise _refusal(path, f"defaultdict with the factory {value.default_factory!r}")
        return {"$": "defaultdict", "factory": factory, "items": self.pairs(value, path)}

    def set(self, value: Iterable[Any], path: str) -> list[Any]:
        # Sorted, because the order of a set of strings differs from process to process.
        return sorted((self.encode(item, f"{path}{{{item!r}}}") for item in value), key=json.dumps)

    def _tensor(self, value: Tensor, path: str) -> Any:
        fault = views.fault(value)
        if fault is not None:
            raise _refusal(path, fault)
        value = value.detach()
        if value.layout is torch.strided:
            return self.views.add(value, path)
        parts = [self.views.add(part, f"{path}.{i}") for i, part in enumerate(_parts(value))]
        layout = str(value.layout).removeprefix("torch.")
        coalesced = layout == "sparse_coo" and value.is_coalesced()
        shape = list(value.shape)
        return {"$": layout, "shape": shape, "coalesced": coalesced, "parts": parts}

    def _leaf(self, value: Any, path: str) -> Any:
        if type(value) is bytes:
            if len(value) <= _INLINE_BYTES:
                return {"$": "bytes", "base64": base64.b64encode(value).decode()}
            return {"$": "bytes", "data": self.views.add(_from_bytes(value), path)}
        if isinstance(value, pathlib.PurePath):
            return {"$": "path", "value": self.encode(str(value), path)}
        if isinstance(value, torch.dtype):
            return {"$": "dtype", "value": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"$": "device", "value": str(value)}
        np = sys.modules.get("numpy")
        if np is not None and (isinstance(value, np.generic) or type(value) is np.ndarray):
            return self._numpy(value, path, np)
        raise _refusal(path, type(value).__qualname__)

    def _numpy(self, value: Any, path: str, np: Any) -> Any:
        if value.dtype.kind not in _NUMPY_KINDS:
            raise _refusal(path, f"numpy {type(value).__name__} of dtype {value.dtype}")
        if isinstance(value, np.generic):
            return {"$": "scalar", "dtype": value.dtype.str, "hex": value.tobytes().hex()}
        try:
            safe = value if value.flags.writeable and value.dtype.isnative else value.copy()
            return {"$": "array", "data": self.views.add(torch.from_numpy(safe), path)}
        except (TypeError, ValueError):  # a dtype, byte order or stride that torch does not have
            data = self.views.add(_from_bytes(value.tobytes()), path)
            shape = list(value.shape)
            return {"$": "array", "dtype": value.dtype.str, "shape": shape, "data": data}


_CONTAINERS: dict[type, Callable[[_Encoder, Any, str], Any]] = {
    list: _Encoder.items,
    dict: _Encoder.dict,
    defaultdict: _Encoder.defaultdict,
    tuple: lambda self, value, path: {"$": "tuple", "items": self.items(value, path)},
    torch.Size: lambda self, value, path: {"$": "size", "items": list(value)},
    deque: lambda self, value, path: {
        "$": "deque",
        "maxlen": value.maxlen,
        "items": self.items(value, path),
    },
    OrderedDict: lambda self, value, path: {"$": "OrderedDict", "items": self.pairs(value, path)},
    Counter: lambda self, value, path: {"$": "Counter", "items": self.pairs(value, path)},
    set: lambda self, value, path: {"$": "set", "items": self.set(value, path)},
    frozenset: lambda self, value, path: {"$": "frozenset", "items": self.set(value, path)},
}


class _Decoder:
    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.views = views.Reader(tensors)
        self.depth = 0

    def decode(self, tree: Any, path: str) -> Any:
        kind = type(tree)
        if kind is not list and kind is not dict:
            return tree
        self.depth += 1
        if self.depth > 4 * MAX_DEPTH:
            raise CheckpointError("state is nested too deep", where=path)
        try:
            if kind is list:
                return self.items(tree, path)
            if "$" in tree:
                return self._marked(tree, path)
            return {key: self.decode(item, join(path, key)) for key, item in tree.items()}
        finally:
            self.depth -= 1

    def _marked(self, tree: dict[str, Any], path: str) -> Any:
        try:
            return _KINDS[tree["$"]](self, tree, path)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as e:
            raise CheckpointError(
                f"{path} is not something renshu wrote: {tree.get('$')!r}",
                where=f"{path}: {type(e).__name__}: {e}",
                allowed=", ".join(_KINDS),
            ) from e

    def items(self, values: Any, path: str) -> list[Any]:
        if type(values) is not list:
            raise TypeError("items must be a list")
        if set(map(type, values)) <= {int, float, bool, str, type(None)}:
            return values
        return [self.decode(value, f"{path}[{i}]") for i, value in enumerate(values)]

    def pairs(self, tree: dict[str, Any], path: str) -> list[tuple[Any, Any]]:
        return [
            (self.decode(key, f"{path} key"), self.decode(item, join(path, key)))
            for key, item in tree["items"]
        ]

    def tensor(self, tree: dict[str, Any], path: str) -> Tensor:
        return self.views.get(tree, path)

    def sparse(self, tree: dict[str, Any], path: str) -> Tensor:
        parts = [self.tensor(part, path) for part in tree["parts"]]
        shape = tree["shape"]
        if tree["$"] == "sparse_coo":
            value = torch.sparse_coo_tensor(*parts, size=shape, check_invariants=True)
            return value._coalesced_(tree["coalesced"] is True)
        layout = getattr(torch, tree["$"])
        return torch.sparse_compressed_tensor(
            *parts, size=shape, layout=layout, check_invariants=True
        )

    def bytes(self, tree: dict[str, Any], path: str) -> bytes:
        if "base64" in tree:
            return base64.b64decode(tree["base64"], validate=True)
        return views.to_bytes(self.tensor(tree["data"], path))

    def array(self, tree: dict[str, Any], path: str) -> Any:
        data = self.tensor(tree["data"], path)
        if "dtype" not in tree:
            return data.numpy()
        import numpy as np

        flat = np.frombuffer(bytearray(views.to_bytes(data)), dtype=_numpy_dtype(tree["dtype"]))
        return flat.reshape(tree["shape"])

    def scalar(self, tree: dict[str, Any], path: str) -> Any:
        import numpy as np

        data, dtype = bytes.fromhex(tree["hex"]), _numpy_dtype(tree["dtype"])
        return np.frombuffer(data, dtype=dtype, count=1)[0] if data else dtype.type()

    def defaultdict(self, tree: dict[str, Any], path: str) -> Any:
        factory = None if tree["factory"] is None else _FACTORIES[tree["factory"]]
        return defaultdict(factory, self.pairs(tree, path))


def _items_as(make: Callable[[list[Any]], Any]) -> Callable[[_Decoder, dict[str, Any], str], Any]:
    return lambda self, tree, path: make(self.items(tree["items"], path))


_KINDS: dict[str, Callable[[_Decoder, dict[str, Any], str], Any]] = {
    "int": lambda self, tree, path: int(tree["hex"], 16),
    "float": lambda self, tree, path: {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}[
        tree["value"]
    ],
    "str": lambda self, tree, path: bytes.fromhex(tree["hex"]).decode("utf-8", "surrogatepass"),
    "bytes": _Decoder.bytes,
    "path": lambda self, tree, path: pathlib.Path(self.decode(tree["value"], path)),
    "tuple": _items_as(tuple),
    "set": _items_as(set),
    "frozenset": _items_as(frozenset),
    "size": _items_as(torch.Size),
    "deque": lambda self, tree, path: deque(self.items(tree["items"], path), tree["maxlen"]),
    "dict": lambda self, tree, path: dict(self.pairs(tree, path)),
    "OrderedDict": lambda self, tree, path: OrderedDict(self.pairs(tree, path)),
    "Counter": lambda self, tree, path: Counter(dict(self.pairs(tree, path))),
    "defaultdict": _Decoder.defaultdict,
    "dtype": lambda self, tree, path: views.DTYPES[tree["value"]],
    "device": lambda self, tree, path: torch.device(tree["value"]),
    "tensor": _Decoder.tensor,
    "array": _Decoder.array,
    "scalar": _Decoder.scalar,
    **dict.fromkeys(views.SPARSE, _Decoder.sparse),
}


def join(path: str, key: Any) -> str:
    """The path of an item: `optimizers[0].state[3].exp_avg`."""
    if type(key) is str and _WORD.fullmatch(key):
        return f"{path}.{key}" if path else key
    return f"{path}[{key!r}]"


def _refusal(path: str, kind: str) -> CheckpointError:
    return CheckpointError(
        f"{path}: {kind} cannot be saved",
        where=path,
        allowed=ALLOWED,
        mend="save plain values, and rebuild the object from them when loading",
    )


def _is_plain_key(key: Any) -> bool:
    return type(key) is str and (key.isascii() or _is_utf8(key))


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _hex_text(text: str) -> dict[str, str]:
    return {"$": "str", "hex": text.encode("utf-8", "surrogatepass").hex()}


def _from_bytes(data: bytes) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else _EMPTY


_EMPTY = torch.empty(0, dtype=torch.uint8)


def _parts(value: Tensor) -> tuple[Tensor, ...]:
    if value.layout is torch.sparse_coo:
        return value._indices(), value._values()
    if value.layout in (torch.sparse_csr, torch.sparse_bsr):
        return value.crow_indices(), value.col_indices(), value.values()
    return value.ccol_indices(), value.row_indices(), value.values()


def _numpy_dtype(text: str) -> Any:
    import numpy as np

    dtype = np.dtype(text)
    if dtype.kind not in _NUMPY_KINDS:
        raise ValueError(f"dtype {text}")
    return dtype
