"""From state to JSON and tensors; `codec` says what comes out."""

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
_BUILTINS = (int, float, str, bool, list, dict, set, tuple)
FACTORIES = {None: None, **{kind.__name__: kind for kind in _BUILTINS}}
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
NUMPY_KINDS = frozenset("biufcmMSU")


class Encoder:
    """Encodes one tree; `finish` then gives the tensors and completes their references."""

    def __init__(self, copy: bool, names: Mapping[str, str] | None) -> None:
        self.views = views.Writer(copy, names)
        self.active: set[int] = set()

    def finish(self) -> dict[str, Tensor]:
        """The tensors by name; the references in what `encode` gave are complete now."""
        return self.views.finish()

    def encode(self, value: Any, path: str) -> Any:
        """The JSON of a value; exact types, so that no subclass comes back as its base."""
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

    def mapping(self, value: dict[Any, Any], path: str) -> Any:
        if "$" not in value and all(map(_is_plain_key, value)):
            return {key: self.encode(item, join(path, key)) for key, item in value.items()}
        return {"$": "dict", "items": self.pairs(value, path)}

    def with_default(self, value: defaultdict[Any, Any], path: str) -> Any:
        name = getattr(value.default_factory, "__name__", None)
        if FACTORIES.get(name) is not value.default_factory:
            raise _refusal(path, f"defaultdict with the factory {value.default_factory!r}")
        return {"$": "defaultdict", "factory": name, "items": self.pairs(value, path)}

    def members(self, value: Iterable[Any], path: str) -> list[Any]:
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
        if value.dtype.kind not in NUMPY_KINDS:
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


_CONTAINERS: dict[type, Callable[[Encoder, Any, str], Any]] = {
    list: Encoder.items,
    dict: Encoder.mapping,
    defaultdict: Encoder.with_default,
    tuple: lambda self, value, path: {"$": "tuple", "items": self.items(value, path)},
    torch.Size: lambda self, value, path: {"$": "size", "items": list(value)},
    deque: lambda self, value, path: {
        "$": "deque",
        "maxlen": value.maxlen,
        "items": self.items(value, path),
    },
    OrderedDict: lambda self, value, path: {"$": "OrderedDict", "items": self.pairs(value, path)},
    Counter: lambda self, value, path: {"$": "Counter", "items": self.pairs(value, path)},
    set: lambda self, value, path: {"$": "set", "items": self.members(value, path)},
    frozenset: lambda self, value, path: {"$": "frozenset", "items": self.members(value, path)},
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
