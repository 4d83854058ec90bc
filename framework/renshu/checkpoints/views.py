"""Tensors of any geometry as plain contiguous ones plus a few numbers, and back.

A tensor alone in its storage and contiguous is stored as it is. Whatever shares a storage, has
gaps, or repeats memory gets a `view` beside its values: which storage, its size in bytes, and the
tensor's stride and offset in it. Identical views are stored once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from renshu.errors import CheckpointError

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype) and not str(dtype).startswith("torch.q")
}
for _bits in range(1, 8):  # torch has the names, but cannot copy such tensors
    DTYPES.pop(f"int{_bits}", None)
    DTYPES.pop(f"uint{_bits}", None)
NATIVE = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
    torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
"""What a safetensors file calls a dtype. All others are stored as bytes, uint8 [..., itemsize]."""
SPARSE = ("sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LAYOUTS = {torch.strided, *(getattr(torch, name) for name in SPARSE)}
_GAP = 4096
_PLAIN_TYPES = (Tensor, torch.nn.Parameter)


def fault(tensor: Tensor) -> str | None:
    """Why a tensor cannot be saved, or None."""
    if type(tensor) not in _PLAIN_TYPES:
        return f"tensor subclass {type(tensor).__qualname__}"
    if tensor.device.type == "meta":
        return "meta tensor (it has no values)"
    if tensor.is_quantized:
        return "quantised tensor"
    if tensor.is_nested or tensor.layout not in _LAYOUTS:
        return f"tensor of layout {tensor.layout}"
    if tensor.dtype not in _NAMES:
        return f"tensor of dtype {tensor.dtype}"
    return None


@dataclass
class _Entry:
    """One tensor of the tree; start and end are its bytes within its storage."""

    ref: dict[str, Any]
    tensor: Tensor
    path: str

    @property
    def start(self) -> int:
        return int(self.tensor.storage_offset()) * self.tensor.element_size()

    @property
    def end(self) -> int:
        last = _last(self.tensor.shape, self.tensor.stride())
        return self.start + (last + 1) * self.tensor.element_size()

    @property
    def used(self) -> int:
        return min(self.tensor.numel() * self.tensor.element_size(), self.end - self.start)

    @property
    def geometry(self) -> tuple[object, ...]:
        t = self.tensor
        return t.dtype, tuple(t.shape), t.stride(), t.storage_offset()


class Writer:
    """Collects the tensors of a tree; `finish` fills in their references.

    Args:
        copy: whether stored tensors are copies in CPU memory.
        names: see `codec.encode`.
    """

    def __init__(self, copy: bool, names: Mapping[str, str] | None) -> None:
        self.copy = copy
        self.names = names
        self.entries: list[_Entry] = []
        self.stored: dict[str, Tensor] = {}
        self.storages = 0

    def add(self, tensor: Tensor, path: str) -> dict[str, Any]:
        """The reference to a strided tensor, complete only after `finish`."""
        if tensor.is_conj() or tensor.is_neg():
            # These are flags on a view: the storage alone holds other values.
            tensor = tensor.resolve_conj().resolve_neg()
        ref = {"$": "tensor", "dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)}
        self.entries.append(_Entry(ref, tensor, path))
        return ref

    def finish(self) -> dict[str, Tensor]:
        """Contiguous CPU tensors by name, each of a dtype in `NATIVE`."""
        groups: dict[object, list[_Entry]] = {}
        for entry in self.entries:
            tensor = entry.tensor
            key = (tensor.device, tensor.untyped_storage().data_ptr())
            groups.setdefault(key if tensor.numel() else id(entry), []).append(entry)
        for group in groups.values():
            if len(group) == 1 and group[0].tensor.is_contiguous():
                self._store(group[0])
            else:
                for cluster in _clusters(group):
                    self._store_cluster(cluster)
        return self.stored

    def _store_cluster(self, cluster: list[_Entry]) -> None:
        first: dict[object, _Entry] = {}
        for entry in cluster:
            first.setdefault(entry.geometry, entry)
        distinct = list(first.values())
        start = min(entry.start for entry in distinct) // 16 * 16  # aligned for every dtype
        size = max(entry.end for entry in distinct) - start
        alone = len(distinct) == 1 and distinct[0].tensor.is_contiguous()
        # A few elements scattered over a huge storage are stored without the storage.
        if alone or size > 4 * sum(entry.used for entry in distinct) + _GAP:
            for entry in distinct:
                self._store(entry)
        else:
            self._store_views(distinct, start, size)
        for entry in cluster:
            entry.ref.update(first[entry.geometry].ref)

    def _store_views(self, entries: list[_Entry], start: int, size: int) -> None:
        """Views of one storage: the storage as bytes, or each view's values under its own name."""
        blob = ""
        if self.names is None:
            source = entries[0].tensor.untyped_storage()
            raw = torch.empty(0, dtype=torch.uint8, device=entries[0].tensor.device)
            blob = self._keep(raw.set_(source, start, (size,), (1,)), entries[0].path)
        for entry in entries:
            offset = (entry.start - start) // entry.tensor.element_size()
            view: dict[str, Any] = {"stride": list(entry.tensor.stride()), "offset": offset}
            if self.names is None:
                entry.ref["name"] = blob
            else:
                self._store(entry)
                view |= {"storage": self.storages, "bytes": size}
            entry.ref["view"] = view
        self.storages += 1

    def _store(self, entry: _Entry) -> None:
        entry.ref["name"] = self._keep(entry.tensor, entry.path)

    def _keep(self, tensor: Tensor, path: str) -> str:
        """Keep a tensor under a name of its own."""
        if tensor.device.type == "cpu" and not self.copy:
            tensor = tensor.contiguous()
        else:
            tensor = tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
        if tensor.dtype not in NATIVE:
            tensor = tensor.reshape(*tensor.shape, 1).view(torch.uint8)
        base = path if self.names is None else self.names.get(path, path)
        name, count = base, 1
        while name in self.stored or name == "__metadata__":
            count += 1
            name = f"{base}~{count}"
        self.stored[name] = tensor
        return name


class Reader:
    """Rebuilds tensors from references; the inverse of `Writer`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.built: dict[str, Tensor] = {}
        self.used: set[str] = set()
        self.storages: dict[int, Tensor] = {}
        total = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
        self.budget = 4 * total + 2 * _GAP * len(tensors)

    def get(self, ref: dict[str, Any], path: str) -> Tensor:
        """The tensor of a reference, the same object for equal references."""
        if ref["name"] not in self.tensors:
            raise CheckpointError(f"the tensor {ref['name']!r} is missing", where=path)
        self.used.add(ref["name"])
        key = repr(ref)
        if key not in self.built:
            self.built[key] = self._build(ref, path)
        return self.built[key]

    def _build(self, ref: dict[str, Any], path: str) -> Tensor:
        value, dtype, shape = self.tensors[ref["name"]], DTYPES[ref["dtype"]], ref["shape"]
        view = ref.get("view")
        if view is not None and "storage" not in view:
            if value.dtype != torch.uint8 or value.dim() != 1:
                raise ValueError(f"{ref['name']!r} holds no storage")
            return _view(value, dtype, shape, view)
        stored = shape if dtype in NATIVE else [*shape, dtype.itemsize]
        if (
            value.dtype != (dtype if dtype in NATIVE else torch.uint8)
            or list(value.shape) != stored
        ):
            found = f"{value.dtype} {list(value.shape)}"
            raise CheckpointError(
                f"the tensor {ref['name']!r} is {found}, the JSON says {dtype} {shape}", where=path
            )
        value = value if dtype in NATIVE else value.view(dtype).reshape(shape)
        if view is None:
            return value
        result = _view(self._storage(view), dtype, shape, view)
        once = _once(result)
        once.copy_(value[tuple(slice(0, size) for size in once.shape)])
        return result

    def _storage(self, view: dict[str, Any]) -> Tensor:
        key, size = view["storage"], view["bytes"]
        if not _counts([key, size]):
            raise ValueError(f"storage {key} of {size} bytes")
        if key not in self.storages:
            self.budget -= size
            if self.budget < 0:
                raise ValueError("storages are larger than what the file can fill")
            self.storages[key] = torch.zeros(size, dtype=torch.uint8)
        return self.storages[key]


def _view(storage: Tensor, dtype: torch.dtype, shape: Any, view: dict[str, Any]) -> Tensor:
    """A tensor within a storage given as bytes; checked, because `set_` would enlarge it."""
    stride, offset = view["stride"], view["offset"]
    if not (_counts(stride) and _counts(shape) and _counts([offset])):
        raise ValueError(f"view {view} of shape {shape}")
    if 0 in shape or (offset + _last(shape, stride) + 1) * dtype.itemsize > storage.numel():
        raise ValueError(f"view {view} of shape {shape} leaves its storage")
    return torch.empty(0, dtype=dtype).set_(storage.untyped_storage(), offset, shape, stride)


def to_bytes(tensor: Tensor) -> bytes:
    """The bytes of a contiguous CPU tensor, in memory order."""
    return bytes(buffer(tensor))


def buffer(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, not copied; valid while the tensor lives."""
    size = tensor.numel() * tensor.element_size()
    if not size:
        return memoryview(b"")
    return memoryview((ctypes.c_ubyte * size).from_address(tensor.data_ptr())).cast("B")


def _clusters(group: list[_Entry]) -> list[list[_Entry]]:
    """Split the views of one storage where a gap of more than a page shows them to be apart."""
    clusters: list[list[_Entry]] = []
    end = 0
    for entry in sorted(group, key=lambda entry: entry.start):
        if not clusters or entry.start > end + _GAP:
            clusters.append([])
        clusters[-1].append(entry)
        end = max(end, entry.end)
    return clusters


def _once(tensor: Tensor) -> Tensor:
    """The tensor with each expanded dimension (stride 0) cut to size 1."""
    shape = [1 if st == 0 else s for s, st in zip(tensor.shape, tensor.stride(), strict=True)]
    return tensor.as_strided(shape, tensor.stride(), tensor.storage_offset())


def _last(shape: Any, stride: Any) -> int:
    """Index of the last element of a view within its storage, from the view's offset."""
    return sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _counts(numbers: Any) -> bool:
    return type(numbers) is list and all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)
