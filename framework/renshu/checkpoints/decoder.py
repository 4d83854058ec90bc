"""From JSON and tensors back to state; the JSON may have been written by anyone."""

from __future__ import annotations

import base64
import math
import pathlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from renshu.checkpoints import views
from renshu.checkpoints.encoder import FACTORIES, MAX_DEPTH, NUMPY_KINDS, join
from renshu.errors import CheckpointError


class Decoder:
    """Rebuilds one tree; `views` knows which tensors were used."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.views = views.Reader(tensors)
        self.depth = 0

    def decode(self, tree: Any, path: str) -> Any:
        """The value of a JSON tree; CheckpointError for what `Encoder` does not write."""
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
        pairs = [
            (self.decode(key, f"{path} key"), self.decode(item, join(path, key)))
            for key, item in tree["items"]
        ]
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a key stands twice")
        return pairs

    def tensor(self, tree: dict[str, Any], path: str) -> Tensor:
        return self.views.get(tree)

    def sparse(self, tree: dict[str, Any], path: str) -> Tensor:
        parts = [self.tensor(part, path) for part in tree["parts"]]
        shape = tree["shape"]
        if tree["$"] == "sparse_coo":
            value = torch.sparse_coo_tensor(*parts, size=shape, check_invariants=True)
            return value._coalesced_(tree["coalesced"] is True)
        options = {"layout": getattr(torch, tree["$"]), "check_invariants": True}
        return torch.sparse_compressed_tensor(*parts, size=shape, **options)

    def raw(self, tree: dict[str, Any], path: str) -> bytes:
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
        return np.frombuffer(data, dtype=dtype)[0] if dtype.itemsize else dtype.type()

    def with_default(self, tree: dict[str, Any], path: str) -> Any:
        return defaultdict(FACTORIES[tree["factory"]], self.pairs(tree, path))


_NO_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _items_as(make: Callable[[list[Any]], Any]) -> Callable[[Decoder, dict[str, Any], str], Any]:
    return lambda self, tree, path: make(self.items(tree["items"], path))


_KINDS: dict[str, Callable[[Decoder, dict[str, Any], str], Any]] = {
    "int": lambda self, tree, path: int(tree["hex"], 16),
    "float": lambda self, tree, path: _NO_NUMBERS[tree["value"]],
    "str": lambda self, tree, path: bytes.fromhex(tree["hex"]).decode("utf-8", "surrogatepass"),
    "bytes": Decoder.raw,
    "path": lambda self, tree, path: pathlib.Path(self.decode(tree["value"], path)),
    "tuple": _items_as(tuple),
    "set": _items_as(set),
    "frozenset": _items_as(frozenset),
    "size": _items_as(torch.Size),
    "deque": lambda self, tree, path: deque(self.items(tree["items"], path), tree["maxlen"]),
    "dict": lambda self, tree, path: dict(self.pairs(tree, path)),
    "OrderedDict": lambda self, tree, path: OrderedDict(self.pairs(tree, path)),
    "Counter": lambda self, tree, path: Counter(dict(self.pairs(tree, path))),
    "defaultdict": Decoder.with_default,
    "dtype": lambda self, tree, path: views.DTYPES[tree["value"]],
    "device": lambda self, tree, path: torch.device(tree["value"]),
    "tensor": Decoder.tensor,
    "array": Decoder.array,
    "scalar": Decoder.scalar,
    **dict.fromkeys(views.SPARSE, Decoder.sparse),
}


def _numpy_dtype(text: str) -> Any:
    import numpy as np

    dtype = np.dtype(text)
    if dtype.kind not in NUMPY_KINDS:
        raise ValueError(f"dtype {text}")
    return dtype
