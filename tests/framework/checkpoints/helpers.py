"""Through the codec and back, and what counts as the same."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from renshu.checkpoints.codec import decode, encode
from renshu.checkpoints.files import dump_json, parse_json
from renshu.checkpoints.tensors import NATIVE


def trip(tree: Any, **options: Any) -> Any:
    """Through the codec and through JSON text, as in a file."""
    encoded, tensors = encode(tree, **options)
    text = dump_json({"tree": encoded})
    assert all(tensor.is_contiguous() and tensor.dtype in NATIVE for tensor in tensors.values())
    return decode(
        parse_json(text, "test")["tree"], {name: t.clone() for name, t in tensors.items()}
    )


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
