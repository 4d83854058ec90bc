"""State to JSON and tensors, and back: the one codec for everything a checkpoint holds.

Plain scalars, lists and dicts with text keys stay plain JSON. Everything else becomes an object
with the key `"$"` that names its kind, for example `{"$": "tuple", "items": [1, 2]}`; a tensor
becomes a reference to an entry of a safetensors file.
"""

from __future__ import annotations

import base64
import json
import pathlib
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from renshu.checkpoints import tensors as geometry
from renshu.errors import CheckpointError

MAX_DEPTH = 100
"""How deep state may be nested."""
_MAPPINGS = (dict, OrderedDict, Counter, defaultdict)
_KIND_NAMES = {kind: kind.__name__ for kind in (tuple, set, frozenset, deque, *_MAPPINGS)}
_KIND_NAMES |= {list: "list", torch.Size: "size"}
_BUILTINS = (int, float, str, bool, list, dict, set, tuple)
_FACTORIES = {None: None, **{kind.__name__: kind for kind in _BUILTINS}}
_PLAIN = 1 << 1000
"""Below it a number is plain JSON: finite, and with no more digits than Python parses."""
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")


def encode(
    tree: Any, path: str = "state", *, copy: bool = False, separate: bool = False
) -> tuple[Any, dict[str, Tensor]]:
    """Turn a tree of state into a JSON tree and the tensors it refers to.

    Args:
        tree: any nesting of None, bool, str, list and the kinds in `_KINDS`.
        path: what the tree is called in errors and tensor names.
        copy: whether the tensors are copies, untouched by later training steps.
        separate: for files that others read: tensors that share memory are stored apart, in full.

    Returns:
        The JSON tree and contiguous CPU tensors by name, all of a dtype that safetensors knows.

    Raises:
        CheckpointError: something cannot be saved, with its path, or the tree contains itself.
    """
    encoder = _Encoder(copy, separate)
    return encoder.encode(tree, path), encoder.tensors.finish()


def decode(tree: Any, tensors: Mapping[str, Tensor], where: object = "state") -> Any:
    """Rebuild what `encode` was given; tensors that shared a storage share one again.

    The result uses the memory of `tensors` where it can.

    Raises:
        CheckpointError: the JSON tree is not one that `encode` writes, or does not fit the tensors.
    """
    decoder = _Decoder(tensors)
    try:
        result = decoder.decode(tree)
    except (LookupError, TypeError, ValueError, RuntimeError, AttributeError, OverflowError) as e:
        what = f"this is not what renshu wrote: {type(e).__name__}: {e}"
        raise CheckpointError(what, where=where) from e
    if unused := sorted(set(tensors) - decoder.tensors.used):
        raise CheckpointError(f"the tensor {unused[0]!r} belongs nowhere", where=where)
    return result


class _Encoder:
    """Encodes one tree; `tensors.finish` then completes the references in it."""

    def __init__(self, copy: bool, separate: bool) -> None:
        self.tensors = geometry.Writer(copy, separate)
        self.around: set[int] = set()

    def encode(self, value: Any, path: str) -> Any:
        """The JSON of a value; exact types, so that no subclass comes back as its base."""
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            return value if -_PLAIN < value < _PLAIN else {"$": "int", "hex": hex(value)}
        if kind is float:
            return value if -_PLAIN < value < _PLAIN else {"$": "float", "value": repr(value)}
        if kind in _KIND_NAMES:
            return self._nested(value, path)
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        return self._leaf(value, path)

    def _nested(self, value: Any, path: str) -> Any:
        if id(value) in self.around or len(self.around) >= MAX_DEPTH:
            what = "contains itself" if id(value) in self.around else "is nested too deep"
            raise CheckpointError(f"{path} {what} and cannot be saved", where=path)
        self.around.add(id(value))
        result = self._container(value, path)
        self.around.discard(id(value))
        return result

    def _container(self, value: Any, path: str) -> Any:
        kind = type(value)
        if kind is list:
            return self._items(value, path)
        if kind is dict and "$" not in value and all(type(key) is str for key in value):
            return {key: self.encode(item, _join(path, key)) for key, item in value.items()}
        items = self._pairs(value, path) if kind in _MAPPINGS else self._items(value, path)
        if kind in (set, frozenset):  # in an order that does not differ from process to process
            items.sort(key=json.dumps)
        marked = {"$": _KIND_NAMES[kind], "items": items}
        if kind is deque:
            marked["maxlen"] = value.maxlen
        if kind is defaultdict:
            marked["factory"] = name = getattr(value.default_factory, "__name__", None)
            if _FACTORIES.get(name) is not value.default_factory:
                raise _refusal(path, f"defaultdict with the factory {value.default_factory!r}")
        return marked

    def _pairs(self, value: Mapping[Any, Any], path: str) -> list[Any]:
        return [
            [self.encode(key, f"{path} key {key!r}"), self.encode(item, _join(path, key))]
            for key, item in value.items()
        ]

    def _items(self, values: Any, path: str) -> list[Any]:
        # Long runs of numbers (random.getstate() is 625 ints, a loss history) cost one pass.
        if set(map(type, values)) <= {int, float} and all(-_PLAIN < n < _PLAIN for n in values):
            return list(values)
        return [self.encode(value, f"{path}[{i}]") for i, value in enumerate(values)]

    def _tensor(self, value: Tensor, path: str) -> Any:
        if (fault := geometry.fault(value)) is not None:
            raise _refusal(path, fault)
        value = value.detach()
        if value.layout is torch.strided:
            return self.tensors.add(value, path)
        if value.layout is torch.sparse_coo:
            parts = value._indices(), value._values()
        else:
            parts = value.crow_indices(), value.col_indices(), value.values()
        refs = [self.tensors.add(part, f"{path}.{i}") for i, part in enumerate(parts)]
        marked = {"$": str(value.layout)[6:], "shape": list(value.shape), "parts": refs}
        return {**marked, "coalesced": len(refs) == 2 and value.is_coalesced()}

    def _leaf(self, value: Any, path: str) -> Any:
        if type(value) is bytes:
            return {"$": "bytes", "base64": base64.b64encode(value).decode()}
        if isinstance(value, pathlib.PurePath):
            return {"$": "path", "value": self.encode(str(value), path)}
        if isinstance(value, torch.dtype):
            return {"$": "dtype", "value": str(value)[6:]}
        if isinstance(value, torch.device):
            return {"$": "device", "value": str(value)}
        np = sys.modules.get("numpy")
        if np is None or not (isinstance(value, np.generic) or type(value) is np.ndarray):
            raise _refusal(path, type(value).__qualname__)
        if value.dtype.kind not in "biufcmMSU":
            raise _refusal(path, f"numpy {type(value).__name__} of dtype {value.dtype}")
        array = np.array(value, order="C", ndmin=1)  # a copy that torch may write to
        if isinstance(value, np.generic):
            return {"$": "scalar", "dtype": array.dtype.str, "hex": array.tobytes().hex()}
        try:
            data = torch.from_numpy(array)
        except (TypeError, ValueError):  # a dtype or byte order that torch does not have
            data = torch.from_numpy(array.reshape(-1).view(np.uint8))
        marked = {"$": "array", "dtype": value.dtype.str, "shape": list(value.shape)}
        return {**marked, "data": self.tensors.add(data, path)}


class _Decoder:
    """Rebuilds one tree; the JSON may have been written by anyone."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = geometry.Reader(tensors)

    def decode(self, tree: Any) -> Any:
        if type(tree) is list:
            return self.items(tree)
        if type(tree) is not dict:
            return tree
        if "$" in tree:
            return _KINDS[tree["$"]](self, tree)
        return {key: self.decode(item) for key, item in tree.items()}

    def items(self, values: Any) -> list[Any]:
        if type(values) is not list:
            raise TypeError("items must be a list")
        return [self.decode(value) for value in values]

    def pairs(self, tree: dict[str, Any]) -> dict[Any, Any]:
        pairs = dict(self.items(tree["items"]))
        if len(pairs) != len(tree["items"]):
            raise ValueError("a key stands twice")
        return pairs

    def sparse(self, tree: dict[str, Any]) -> Tensor:
        parts = [self.tensors.get(part) for part in tree["parts"]]
        make = torch.sparse_coo_tensor if tree["$"] == "sparse_coo" else torch.sparse_csr_tensor
        value = make(*parts, size=tree["shape"], check_invariants=True)
        return value._coalesced_(True) if tree["coalesced"] is True else value

    def array(self, tree: dict[str, Any]) -> Any:
        flat = self.tensors.get(tree["data"]).numpy().reshape(-1)
        return flat.view(tree["dtype"]).reshape(tree["shape"])

    def scalar(self, tree: dict[str, Any]) -> Any:
        import numpy as np

        return np.frombuffer(bytes.fromhex(tree["hex"]), dtype=tree["dtype"])[0]


_KINDS: dict[str, Callable[[_Decoder, dict[str, Any]], Any]] = {
    "int": lambda self, tree: int(tree["hex"], 16),
    "float": lambda self, tree: float(tree["value"]),
    "bytes": lambda self, tree: base64.b64decode(tree["base64"], validate=True),
    "path": lambda self, tree: pathlib.Path(self.decode(tree["value"])),
    "dtype": lambda self, tree: geometry.DTYPES[tree["value"]],
    "device": lambda self, tree: torch.device(tree["value"]),
    "tuple": lambda self, tree: tuple(self.items(tree["items"])),
    "set": lambda self, tree: set(self.items(tree["items"])),
    "frozenset": lambda self, tree: frozenset(self.items(tree["items"])),
    "size": lambda self, tree: torch.Size(self.items(tree["items"])),
    "deque": lambda self, tree: deque(self.items(tree["items"]), tree["maxlen"]),
    "dict": _Decoder.pairs,
    "OrderedDict": lambda self, tree: OrderedDict(self.pairs(tree)),
    "Counter": lambda self, tree: Counter(self.pairs(tree)),
    "defaultdict": lambda self, tree: defaultdict(_FACTORIES[tree["factory"]], self.pairs(tree)),
    "tensor": lambda self, tree: self.tensors.get(tree),
    "sparse_coo": _Decoder.sparse,
    "sparse_csr": _Decoder.sparse,
    "array": _Decoder.array,
    "scalar": _Decoder.scalar,
}


def _join(path: str, key: Any) -> str:
    """The path of an item: `optimizers[0].state[3].exp_avg`; the first key stands as it is."""
    if type(key) is str and (not path or _WORD.fullmatch(key)):
        return f"{path}.{key}" if path else key
    return f"{path}[{key!r}]"


def _refusal(path: str, kind: str) -> CheckpointError:
    allowed = f"None, bool, str, list, {', '.join(_KINDS)}"
    mend = "save plain values, and rebuild the object from them when loading"
    return CheckpointError(
        f"{path}: {kind} cannot be saved", where=path, allowed=allowed, mend=mend
    )
