"""State to JSON and tensors, and back: the one codec for everything a checkpoint holds.

Plain scalars, lists and dicts with text keys stay plain JSON. Everything else becomes an object
with the key `"$"` that names its kind, for example `{"$": "tuple", "items": [1, 2]}`; a tensor
becomes a reference to an entry of a safetensors file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from renshu.checkpoints.decoder import Decoder
from renshu.checkpoints.encoder import Encoder
from renshu.errors import CheckpointError


def encode(
    tree: Any, path: str = "state", *, copy: bool = False, names: Mapping[str, str] | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """Turn a tree of state into a JSON tree and the tensors it refers to.

    Args:
        tree: any nesting of the types in `encoder.ALLOWED`.
        path: what the tree is called in errors and tensor names.
        copy: whether the tensors are copies, untouched by later training steps.
        names: names of tensors by their path, for files that others read: each is then stored on
            its own and in full; else the path is the name.

    Returns:
        The JSON tree and contiguous CPU tensors by name, all of a dtype that safetensors knows.

    Raises:
        CheckpointError: something cannot be saved, with its path, or the tree contains itself.
    """
    encoder = Encoder(copy, names)
    return encoder.encode(tree, path), encoder.finish()


def decode(tree: Any, tensors: Mapping[str, Tensor], path: str = "state") -> Any:
    """Rebuild what `encode` was given; tensors that shared a storage share one again.

    The result uses the memory of `tensors` where it can.

    Raises:
        CheckpointError: the JSON tree is not one that `encode` writes, or does not fit the tensors.
    """
    decoder = Decoder(tensors)
    result = decoder.decode(tree, path)
    unused = sorted(set(tensors) - decoder.views.used)
    if unused:
        raise CheckpointError(f"the tensor {unused[0]!r} belongs nowhere", where=path)
    return result
