"""Tensors of any geometry as plain contiguous ones plus a few numbers, and back.

A tensor alone in its storage is stored as it is, with its stride where it is not contiguous.
Tensors that share a storage, or repeat memory, are stored as one stretch of bytes, each with its
stride and offset in it; in files for other programs each under its own name, equal ones once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

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
        alone = len(distinct) == 1 and _is_dense(distinct[0].tensor)
        # A few elements scattered over a huge storage are stored without the storage.
        if alone or self.names is not None or size > 4 * sum(e.used for e in distinct) + _GAP:
            for entry in distinct:
                self._store(entry)
        else:
            self._store_storage(distinct, start, size)
        for entry in cluster:
            entry.ref.update(first[entry.geometry].ref)

    def _store_storage(self, entries: list[_Entry], start: int, size: int) -> None:
        """Keep a stretch of storage as bytes, and where in it each view lies."""
        first = entries[0].tensor
        raw = torch.empty(0, dtype=torch.uint8, device=first.device)
        name = self._keep(raw.set_(first.untyped_storage(), start, (size,), (1,)), entries[0].path)
        for entry in entries:
            offset = (entry.start - start) // entry.tensor.element_size()
            entry.ref |= {"name": name, "stride": list(entry.tensor.stride()), "offset": offset}

    def _store(self, entry: _Entry) -> None:
        entry.ref["name"] = self._keep(entry.tensor, entry.path)
        if not entry.tensor.is_contiguous() and _is_dense(entry.tensor):
            entry.ref["stride"] = list(entry.tensor.stride())

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

    def get(self, ref: dict[str, Any]) -> Tensor:
        """The tensor of a reference, the same object for equal references.

        Raises:
            ValueError: the reference does not fit the stored tensor.
        """
        if ref["name"] not in self.tensors:
            raise ValueError(f"the tensor {ref['name']!r} is missing")
        self.used.add(ref["name"])
        key = repr(ref)
        if key not in self.built:
            self.built[key] = self._build(**ref)
        return self.built[key]

    def _build(
        self, name: str, dtype: str, shape: Any, stride: Any = None, offset: Any = None, **_: Any
    ) -> Tensor:
        value, kind = self.tensors[name], DTYPES[dtype]
        if offset is not None:
            return _within(value, kind, shape, stride, offset)
        native = kind in NATIVE
        stored = shape if native else [*shape, kind.itemsize]
        if value.dtype != (kind if native else torch.uint8) or list(value.shape) != stored:
            raise ValueError(f"{name!r} is {value.dtype} {list(value.shape)}, not {dtype} {shape}")
        value = value if native else value.view(kind).reshape(shape)
        if stride is None:
            return value
        if not _counts(stride) or _last(shape, stride) + 1 != value.numel():
            raise ValueError(f"stride {stride} of shape {shape}")
        return torch.empty_strided(shape, stride, dtype=kind).copy_(value)


def _within(storage: Tensor, dtype: torch.dtype, shape: Any, stride: Any, offset: Any) -> Tensor:
    """A view of a storage given as bytes; checked here, because `set_` would enlarge it."""
    known = storage.dtype == torch.uint8 and storage.dim() == 1 and 0 not in shape
    if not (known and _counts(stride) and _counts(shape) and _counts([offset])):
        raise ValueError(f"shape {shape}, stride {stride}, offset {offset}")
    if (offset + _last(shape, stride) + 1) * dtype.itemsize > storage.numel():
        raise ValueError(f"shape {shape}, stride {stride}, offset {offset} leaves its storage")
    return torch.empty(0, dtype=dtype).set_(storage.untyped_storage(), offset, shape, stride)


def to_bytes(tensor: Tensor) -> bytes:
    """The bytes of a CPU tensor; ValueError if it is not contiguous, as ours always are."""
    if not tensor.is_contiguous():
        raise ValueError("bytes that are not contiguous")
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


def _is_dense(tensor: Tensor) -> bool:
    """Whether each element has a place of its own and no place is empty."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size if size != 1 else 1
    return True


def _last(shape: Any, stride: Any) -> int:
    """Index of the last element of a view within its storage, from the view's offset."""
    return sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def _counts(numbers: Any) -> bool:
    return type(numbers) is list and all(type(n) is int and 0 <= n < 1 << 62 for n in numbers)
