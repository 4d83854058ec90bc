"""Tensors of every dtype, geometry and layout come back, and storages are stored once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from renshu.checkpoints.codec import decode, encode
from renshu.checkpoints.tensors import DTYPES
from renshu.errors import CheckpointError

from .helpers import equal_bits, same, trip


def _every_dtype() -> list[torch.dtype]:
    broken = {"complex32", "bcomplex32"}  # torch itself warns that these are experimental
    return [dtype for name, dtype in DTYPES.items() if name not in broken and "bits" not in name]


@pytest.mark.parametrize("dtype", _every_dtype(), ids=str)
def test_every_dtype_comes_back_bit_equal(dtype: torch.dtype) -> None:
    """All bit patterns of one byte, NaNs included; also 0-dim and transposed."""
    raw = torch.arange(256, dtype=torch.uint8).repeat(dtype.itemsize)
    raw = (raw % 2) if dtype == torch.bool else raw
    tensor = raw.view(dtype)
    try:
        tensor.clone()
    except NotImplementedError:
        pytest.skip(f"torch {torch.__version__} cannot copy {dtype}")
    for value in (tensor, tensor[3], tensor[:64].reshape(8, 8).t()):
        back = trip({"x": value})["x"]
        assert equal_bits(back, value)
        assert back.stride() == value.stride()


def _tensors() -> dict[str, Tensor]:
    base = torch.arange(24.0)
    wave = torch.randn(4, dtype=torch.complex64)
    return {
        "parameter": nn.Parameter(torch.ones(2)),
        "channels last": torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "sliced": base[::2],
        "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
        "expanded": torch.ones(3, 1).expand(3, 5),
        "windows": base.unfold(0, 3, 1),
        "empty": torch.zeros(0, 4),
        "0-dim": torch.tensor(2.5),
        "conjugated": wave.conj(),
        "negated": wave.conj().imag,
        "real part": wave.real,
        "0-dim conjugated": torch.tensor(1 + 2j).conj(),
        "requires grad": torch.ones(2, requires_grad=True) * 2,
        "column of a large matrix": torch.rand(500, 500)[:, 7],
    }


@pytest.mark.parametrize("name", _tensors())
def test_tensor_comes_back(name: str) -> None:
    value = _tensors()[name]
    torch.manual_seed(0)
    back = trip({"x": value})["x"]
    assert type(back) is Tensor
    assert not back.requires_grad
    assert equal_bits(back, value)


@pytest.mark.parametrize("name", ["channels last", "sliced", "permuted", "expanded", "windows"])
def test_stride_comes_back(name: str) -> None:
    value = _tensors()[name]
    assert trip({"x": value})["x"].stride() == value.stride()


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning")
def test_sparse_tensors_come_back() -> None:
    dense = torch.tensor([[0.0, 1.0, 0.0, 0.0], [2.0, 0.0, 0.0, 3.0]])
    twice = torch.sparse_coo_tensor([[0, 0], [1, 1]], [1.0, 2.0], (2, 4), check_invariants=True)
    found = trip({"coo": dense.to_sparse(), "twice": twice, "hybrid": dense.to_sparse(1)})
    assert torch.equal(found["coo"].to_dense(), dense)
    assert found["coo"].is_coalesced()
    assert not found["twice"].is_coalesced()
    assert torch.equal(found["twice"]._values(), twice._values())
    assert torch.equal(found["hybrid"].to_dense(), dense)
    back = trip({"csr": dense.to_sparse_csr()})["csr"]
    assert back.layout == torch.sparse_csr
    assert torch.equal(back.to_dense(), dense)


@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta:UserWarning")
@pytest.mark.parametrize("layout", ["sparse_csc", "sparse_bsr", "sparse_bsc"])
def test_other_layouts_are_refused_by_name(layout: str) -> None:
    block = None if layout == "sparse_csc" else (1, 1)
    value = torch.eye(2).to_sparse(layout=getattr(torch, layout), blocksize=block)
    with pytest.raises(CheckpointError, match=rf"state\.x: tensor of torch\.{layout} "):
        encode({"x": value})


def test_views_of_one_storage_are_stored_once_and_share_again() -> None:
    base = torch.arange(20.0)
    tree = {"all": base, "middle": base[5:9], "matrix": base.view(4, 5).t(), "again": base}
    _, tensors = encode(tree)
    assert sum(t.nbytes for t in tensors.values()) == base.nbytes
    back = trip(tree)
    assert all(equal_bits(back[key], tree[key]) for key in tree)
    back["all"][5] = 99
    assert back["middle"][0] == back["matrix"][0, 1] == back["again"][5] == 99


def test_views_of_other_dtypes_share_again() -> None:
    base = torch.zeros(4, dtype=torch.float64)
    back = trip([base, base.view(torch.int32)[2:], base.view(torch.uint8)])
    back[0][1] = 1.0
    assert torch.equal(back[2].view(torch.float64), back[0])
    assert torch.equal(back[1], back[0].view(torch.int32)[2:])


def test_only_the_used_part_of_a_huge_storage_is_stored() -> None:
    huge = torch.zeros(10_000_000)
    for view in (huge[5_000_000:5_000_010], huge[::1_000_000], huge.view(1000, -1)[:, 3]):
        _, tensors = encode({"x": view})
        assert sum(t.nbytes for t in tensors.values()) == view.numel() * 4
    _, tensors = encode({"x": huge[100:110], "y": huge[200:210]})
    assert sum(t.nbytes for t in tensors.values()) == 110 * 4
    _, tensors = encode({"x": torch.zeros(1).expand(10**12)})
    assert sum(t.nbytes for t in tensors.values()) == 4


def test_copies_do_not_follow_the_original() -> None:
    live = {"plain": torch.zeros(3), "view": torch.zeros(8)[::2], "array": np.zeros(3)}
    encoded, tensors = encode(live, copy=True)
    for value in live.values():
        value += 1
    back = decode(encoded, tensors)
    assert not back["plain"].any()
    assert not back["view"].any()
    assert not back["array"].any()


def test_names_that_collide_are_kept_apart() -> None:
    tree = {"a.b": torch.zeros(1), "a": {"b": torch.ones(1)}, "__metadata__": torch.full((1,), 2.0)}
    encoded, tensors = encode(tree, "")
    assert "__metadata__" not in tensors
    assert same(decode(encoded, tensors, ""), tree)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
@pytest.mark.filterwarnings("ignore:.*[Qq]uantiz:UserWarning")
def test_quantised_and_nested_tensors_are_refused_by_name() -> None:
    quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    with pytest.raises(CheckpointError, match="quantised tensor"):
        encode({"x": quantised})
