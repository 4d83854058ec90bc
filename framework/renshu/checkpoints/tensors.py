"""Tensors of any geometry as plain contiguous ones plus a few numbers, and back.

A tensor alone in its storage is stored as it is, with its stride where it is not contiguous.
Tensors that share a storage, or repeat memory, are stored as one stretch of bytes, each with its
stride and offset in it; in files for other programs each under its own name, equal ones once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    name: dtype
    for name, dtype in ((str(d)[6:], d) for d in vars(torch).values() if type(d) is torch.dtype)
    # Quantised numbers have a scale besides; integers of fewer than 8 bits torch cannot copy.
    if not re.fullmatch(r"q.*|u?int[1-7]", name)
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
NATIVE = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.float8_e4m3fn),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8, torch.float8_e5m2),
}
"""What safetensors can hold. All other dtypes are stored as bytes, uint8 [..., itemsize]."""
_LAYOUTS = (torch.strided, torch.sparse_coo, torch.sparse_csr)
_View = tuple[dict[str, Any], Tensor, str]


def fault(tensor: Tensor) -> str | None:
    """Why a tensor cannot be saved, or None."""
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"tensor subclass {type(tensor).__qualname__}"
    odd = tensor.is_quantized or tensor.is_nested or tensor.device.type == "meta"
    if odd or tensor.dtype not in _NAMES or tensor.layout not in _LAYOUTS:
        kind = "quantised " if tensor.is_quantized else "nested " if tensor.is_nested else ""
        return f"{kind}tensor of {tensor.layout} and {tensor.dtype} on {tensor.device}"
    return None


class Writer:
    """Collects the tensors of a tree; `finish` fills in their references.

    Args:
        copy: whether stored tensors are copies in CPU memory.
        separate: whether tensors that share memory are stored apart, each under its own name.
    """

    def __init__(self, copy: bool, separate: bool) -> None:
        self.copy, self.separate = copy, separate
        self.refs: dict[object, dict[str, Any]] = {}
        self.groups: defaultdict[object, list[_View]] = defaultdict(list)
        self.stored: dict[str, Tensor] = {}

    def add(self, tensor: Tensor, path: str) -> dict[str, Any]:
        """The reference to a strided tensor, complete after `finish`; equal views have one."""
        # Conjugation and sign are flags on a view: the storage alone holds other values.
        tensor = tensor.resolve_conj().resolve_neg()
        memory = tensor.untyped_storage().data_ptr() if tensor.numel() else path
        place = tensor.storage_offset(), tensor.stride(), tensor.shape, tensor.dtype
        key = (tensor.device, memory, *place)
        if key not in self.refs:
            ref = {"$": "tensor", "dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape)}
            self.groups[key[:2]].append((ref, tensor, path))
            self.refs[key] = ref
        return self.refs[key]

    def finish(self) -> dict[str, Tensor]:
        """Contiguous CPU tensors by name, each of a dtype in `NATIVE`."""
        for views in self.groups.values():
            self._store(views)
        return self.stored

    def _store(self, views: list[_View]) -> None:
        """Keep different views of one storage."""
        spans = [_span(tensor) for _, tensor, _ in views]
        start = min(first for first, _ in spans) // 16 * 16  # aligned for every dtype
        size = max(end for _, end in spans) - start
        _, tensor, path = views[0]
        # A few elements scattered over a huge storage are stored without the storage.
        scattered = size > 4 * tensor.numel() * tensor.element_size()
        if self.separate or (len(views) == 1 and (scattered or _is_dense(tensor))):
            for ref, tensor, path in views:
                ref["name"] = self._keep(tensor, path)
                if not tensor.is_contiguous() and _is_dense(tensor):
                    ref["stride"] = list(tensor.stride())
            return
        raw = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        name = self._keep(raw.set_(tensor.untyped_storage(), start, (size,), (1,)), path)
        for (ref, tensor, _), (first, _) in zip(views, spans, strict=True):
            offset = (first - start) // tensor.element_size()
            ref |= {"name": name, "stride": list(tensor.stride()), "offset": offset}

    def _keep(self, tensor: Tensor, path: str) -> str:
        """Keep a tensor under a name of its own."""
        tensor = tensor.to("cpu", copy=self.copy).contiguous()
        if tensor.dtype not in NATIVE:
            tensor = tensor.reshape(*tensor.shape, 1).view(torch.uint8)
        name = path.encode("utf-8", "backslashreplace").decode()
        while name in self.stored or name == "__metadata__":
            name += "~"
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
            KeyError, TypeError, ValueError, RuntimeError: the reference does not fit what is there.
        """
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
            known = value.numel() // kind.itemsize * kind.itemsize
            flat = value.view(torch.uint8)[:known].view(kind)
            # torch refuses what leaves the storage, and in files each tensor has one of its own.
            return flat.as_strided(shape, stride, flat.storage_offset() + offset)
        value = value if kind in NATIVE else value.view(kind).squeeze(-1)
        if value.dtype != kind or list(value.shape) != shape:
            raise ValueError(f"{name!r} is {value.dtype} {list(value.shape)}, not {dtype} {shape}")
        if stride is None:
            return value
        if _last(shape, stride) + 1 != value.numel():
            raise ValueError(f"{name!r} has the stride {stride} for the shape {shape}")
        return torch.empty_strided(shape, stride, dtype=kind).copy_(value)


def _is_dense(tensor: Tensor) -> bool:
    """Whether each element has a place of its own and no place is empty."""
    return torch.empty_like(tensor, device="meta").stride() == tensor.stride()  # kept only then


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte in the storage, and the one after the last."""
    first = int(tensor.storage_offset())
    end = first + _last(tensor.shape, tensor.stride()) + 1
    return first * tensor.element_size(), end * tensor.element_size()


def _last(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Index of the last element of a view within its storage, from the view's offset."""
    return sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
