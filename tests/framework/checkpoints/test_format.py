"""The folder on disk: open to others, checked file by file, ordered by what it records."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from renshu.checkpoints import (
    listing,
    newest,
    read,
    read_manifest,
    read_weights,
    snapshot,
    verify,
    write,
)
from renshu.checkpoints import manifest as manifest_module
from renshu.checkpoints.files import pack, read_tensors
from renshu.errors import CheckpointError

from .conftest import make_state
from .test_codec import equal_bits, same

pytestmark = pytest.mark.usefixtures("no_fsync")
FILES = ("model.safetensors", "state.safetensors", "state.json", "manifest.json")
FIXTURE = Path(__file__).parents[2] / "fixtures" / "checkpoint-format-1"


@pytest.fixture
def saved(tmp_path: Path, state: dict[str, Any]) -> Path:
    return write(snapshot(state, step=1, batches=4), tmp_path / "runs" / "step=000001")


def test_state_comes_back(saved: Path, state: dict[str, Any]) -> None:
    found = read(saved)
    assert list(found) == list(state)
    assert same({**found, "model": 0}, {**state, "model": 0})
    assert list(found["model"]) == list(state["model"])
    assert all(equal_bits(found["model"][k], v) for k, v in state["model"].items())
    assert found["model"]["linear.weight"].stride() == (1, 3)
    assert found["model"]["head.weight"] is found["model"]["embed.weight"]
    assert sorted(file.name for file in saved.iterdir()) == sorted(FILES)
    assert [path.name for path in saved.parent.iterdir()] == ["step=000001"]


def test_weights_alone_come_back_with_what_torch_hides(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    path = write(snapshot({"model": model.state_dict(), "x": torch.ones(3)}), tmp_path / "c")
    weights = read_weights(path)
    assert weights._metadata == model.state_dict()._metadata
    assert list(weights) == list(model.state_dict())
    fresh = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    fresh.load_state_dict(weights)
    assert torch.equal(fresh[0].weight, model[0].weight)
    empty = write(snapshot({"x": 1}), tmp_path / "d")
    assert read(empty) == {"x": 1}
    with pytest.raises(CheckpointError, match="holds no model"):
        read_weights(empty)


def test_snapshot_does_not_see_later_steps(tmp_path: Path) -> None:
    weight, moment = torch.zeros(3), torch.zeros(3)
    taken = snapshot({"model": {"w": weight}, "optimizer": [moment]})
    assert taken.nbytes == 24
    weight += 1
    moment += 1
    found = read(write(taken, tmp_path / "c"))
    assert not found["model"]["w"].any()
    assert not found["optimizer"][0].any()


# pains/trainer.md rows 6 and 37
def test_the_files_open_without_renshu(saved: Path) -> None:
    """With safetensors and json alone, in a process that has no renshu and no pickle."""
    code = """
import json, sys
sys.modules["renshu"] = sys.modules["numpy"] = None
from safetensors import safe_open
from safetensors.torch import load_file
import torch
folder = sys.argv[1]
weights = load_file(folder + "/model.safetensors")
with safe_open(folder + "/model.safetensors", "pt") as file:
    tied = file.metadata()
assert tied == {"head.weight": "embed.weight", "format": "pt"}, tied
weights["head.weight"] = weights[tied["head.weight"]]
assert weights["linear.weight"].tolist() == [[1.0, 4.0], [2.0, 5.0], [3.0, 6.0]]
assert weights["norm.scale"].dtype == torch.bfloat16
moments = load_file(folder + "/state.safetensors")
assert moments["optimizer.state[0].exp_avg"].shape == (4, 3)
state = json.load(open(folder + "/state.json"))["state"]
assert state["progress"]["step"] == 1
assert json.load(open(folder + "/manifest.json"))["step"] == 1
"""
    command = [sys.executable, "-I", "-W", "ignore", "-c", code, str(saved)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_safetensors_own_loader_ties_the_weights_again(saved: Path) -> None:
    from safetensors.torch import load_model

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
            self.head.weight = self.embed.weight
            self.linear = nn.Linear(2, 3, bias=False)
            self.norm = nn.Module()
            self.norm.scale = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))

    net = Net()
    load_model(net, saved / "model.safetensors")
    assert net.head.weight is net.embed.weight
    assert net.embed.weight.unique().tolist() == [1.0]


# pains/trainer.md row 6
def test_no_file_is_a_pickle(saved: Path) -> None:
    import pickletools
    import zipfile

    for file in saved.iterdir():
        assert not zipfile.is_zipfile(file)
        with pytest.raises(Exception, match=r"."):
            list(pickletools.genops(file.read_bytes()))


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_refused_naming_the_file(name: str, saved: Path) -> None:
    """Every 7th byte, whatever it stands for; the manifest is sealed as well."""
    file = saved / name
    whole = file.read_bytes()
    for position in [*range(0, len(whole), 7), len(whole) - 1]:
        file.write_bytes(_flipped(whole, position))
        for check in (verify, read):
            with pytest.raises(CheckpointError) as caught:
                check(saved)
            assert name in str(caught.value), position
    file.write_bytes(whole)
    verify(saved)


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize("name", FILES)
def test_a_shortened_or_lengthened_file_is_refused(name: str, saved: Path) -> None:
    file = saved / name
    whole = file.read_bytes()
    lengths = {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1, *range(10, len(whole), 97)}
    for content in [*(whole[:n] for n in lengths), whole + b"\0", whole + b" "]:
        file.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            read(saved)
        assert name in str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_naming_it(name: str, saved: Path) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        verify(saved)


def test_what_renshu_did_not_write_is_refused(saved: Path) -> None:
    (saved / "rng_state.pth").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match=r"rng_state\.pth"):
        verify(saved)
    (saved / "rng_state.pth").unlink()
    (saved / ".DS_Store").touch()
    verify(saved)


# pains/security.md row 11
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", FILES)
def test_links_pipes_and_folders_are_refused_at_once(name: str, saved: Path) -> None:
    kept = saved.parent / "kept"
    (saved / name).rename(kept)
    start = time.monotonic()
    makes: list[Callable[[Path], object]] = [
        lambda file: file.symlink_to(kept),
        lambda file: os.mkfifo(file),
        lambda file: file.symlink_to("/dev/zero"),
        lambda file: file.mkdir(),
    ]
    for make in makes:
        make(saved / name)
        for check in (verify, read):
            with pytest.raises(CheckpointError, match=re.escape(name)):
                check(saved)
        (saved / name).rmdir() if (saved / name).is_dir() else (saved / name).unlink()
    assert time.monotonic() - start < 2


# pains/security.md row 1
@pytest.mark.parametrize("name", ["last.ckpt", "model.pt", "pytorch_model.bin", "x.pkl"])
def test_other_files_are_refused_before_anything_is_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pickle

    def never(*args: object, **options: object) -> None:
        raise AssertionError("a pickle was opened")

    (tmp_path / name).write_bytes(b"\x80\x04N.")
    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr(pickle, "Unpickler", never)
    for call in (read, verify, read_weights, read_manifest):
        with pytest.raises(CheckpointError, match="a checkpoint of renshu is a folder"):
            call(tmp_path / name)


def test_a_pickle_under_a_safe_name_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"\x80\x04N." * 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read(saved)


def _reseal(path: Path, **changes: Any) -> None:
    """A manifest with other values whose seal fits: what a hostile writer can do."""
    tree = {**json.loads((path / "manifest.json").read_text()), **changes}
    tree = {key: value for key, value in tree.items() if value is not ...}
    tree["seal"] = "0" * 64
    text = json.dumps(tree).encode()
    seal = manifest_module._seal(text)
    (path / "manifest.json").write_bytes(text.replace(b"0" * 64, seal.encode()))


def test_a_newer_format_is_refused_by_name_an_older_one_migrated(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _reseal(saved, format=7)
    with pytest.raises(CheckpointError, match="has format 7, this renshu reads up to 1"):
        read(saved)
    _reseal(saved, format=1)
    monkeypatch.setattr("renshu.checkpoints.manifest.FORMAT", 2)
    monkeypatch.setattr("renshu.checkpoints.format.FORMAT", 2)
    with pytest.raises(CheckpointError, match="no migration from format 1"):
        read(saved)
    monkeypatch.setitem(manifest_module.MIGRATIONS, 1, lambda state: {**state, "moved": True})
    assert read(saved)["moved"] is True


# pains/security.md rows 4 and 29
@pytest.mark.parametrize(
    "changes",
    [
        {"step": -1},
        {"step": 1.0},
        {"step": True},
        {"step": 10**30},
        {"step": "1"},
        {"epoch": None},
        {"batches": ...},
        {"_instantiator": "os.system"},
        {"class_path": "os.system"},
        {"files": {}},
        {"files": {"../../x": {"sha256": "0", "bytes": 1}}},
        {"files": []},
        {"meta": []},
        {"meta": {"x": {"$": "_target_"}}},
        {"format": 0},
        {"format": "1"},
        {"format": True},
    ],
    ids=str,
)
def test_a_manifest_of_another_form_is_refused(changes: dict[str, Any], saved: Path) -> None:
    _reseal(saved, **changes)
    with pytest.raises(CheckpointError):
        verify(saved)
    assert listing(saved.parent) == []


def test_a_manifest_that_could_not_be_read_is_not_written() -> None:
    wrong = [{"step": -1}, {"epoch": 1.5}, {"batches": True}, {"meta": {"x": torch.ones(1)}}]
    for fields in wrong:
        with pytest.raises(CheckpointError, match=rf"'{next(iter(fields))}'"):
            snapshot({}, **fields)


def test_meta_keeps_what_json_would_lose(tmp_path: Path) -> None:
    meta = {"loss": float("inf"), "seed": 2**70, "at": (1, 2)}
    path = write(snapshot({}, meta=meta), tmp_path / "c")
    assert verify(path).meta == read_manifest(path).meta == meta


# pains/security.md row 12
def test_names_never_become_paths(tmp_path: Path) -> None:
    names = ["../../x", "/abs", "a/../../x", "C:\\x", "n\0l", "x" * 5000, "", "__metadata__", "ü"]
    state = {
        "model": {name: torch.full((1,), float(i)) for i, name in enumerate(names)},
        **{name: {name: torch.ones(1)} for name in names},
    }
    path = write(snapshot(state), tmp_path / "in" / "c")
    assert same(dict(read(path)["model"]), state["model"])
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == set(FILES)
    assert {p.parent for p in tmp_path.rglob("*") if p.is_file()} == {path}


def test_only_a_checkpoint_is_ever_replaced(tmp_path: Path, state: dict[str, Any]) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    (mine / "cat.png").touch()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(mine)
    for name in ("photos", "file", "link"):
        with pytest.raises(CheckpointError, match="something is there"):
            write(snapshot(state), tmp_path / name)
    assert (mine / "cat.png").exists()
    (tmp_path / "empty").mkdir()
    verify(write(snapshot(state), tmp_path / "empty"))


def test_replacing_leaves_the_new_one_alone(saved: Path) -> None:
    for step in (2, 3):
        write(snapshot(make_state(step), step=step), saved)
        assert read(saved)["progress"]["step"] == verify(saved).step == step
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


# pains/security.md row 38
@pytest.mark.parametrize("stamps", ["equal", "reversed", "in 2100"])
def test_order_is_what_was_recorded_never_time_stamps(stamps: str, tmp_path: Path) -> None:
    places = [(3, 12), (20, 80), (100, 400), (100, 401)]
    paths = [
        write(snapshot({}, step=step, batches=batches), tmp_path / f"{9 - i}-{step}")
        for i, (step, batches) in enumerate(places)
    ]
    for i, path in enumerate(paths):
        at = {"equal": 1e9, "reversed": 1e9 - 1e6 * i, "in 2100": 4.1e9}[stamps]
        for file in (*path.iterdir(), path):
            os.utime(file, (at, at))
    assert [path for path, _ in listing(tmp_path)] == paths
    assert newest(tmp_path) == paths[-1]


# pains/security.md row 38, pains/trainer.md row 7
def test_a_broken_newest_one_is_named_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (
        write(snapshot(make_state(n), step=n), tmp_path / f"step={n}") for n in (1, 2, 3)
    )
    file = third / "state.safetensors"
    whole = file.read_bytes()
    for size in range(0, len(whole), max(1, len(whole) // 20)):
        file.write_bytes(whole[:size])
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="renshu"):
            assert newest(tmp_path) == second
        assert "step=3" in caplog.text
        assert "state.safetensors" in caplog.text
    (second / "state.json").write_bytes(_flipped((second / "state.json").read_bytes(), 5))
    assert newest(tmp_path) == first
    (first / "manifest.json").unlink()
    assert newest(tmp_path) is None
    assert newest(tmp_path / "none") is None
    assert listing(tmp_path / "none") == []


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def _entry(shape: list[Any], start: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


BAD_HEADERS: dict[str, bytes] = {
    "length 2^63": _safetensors(b"{}", length=2**63),
    "length 0": _safetensors(b"", b""),
    "length past the end": _safetensors(b"{}", length=3),
    "NUL padding": _safetensors(b"{}\0\0"),
    "not UTF-8": _safetensors(b'{"\xff": 1}'),
    "a list": _safetensors([]),
    "twin keys": _safetensors(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
        b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"\0",
    ),
    "overlap": _safetensors({"a": _entry([2], 0, 8), "b": _entry([2], 4, 12)}, b"\0" * 12),
    "gap": _safetensors({"a": _entry([1], 0, 4), "b": _entry([1], 8, 12)}, b"\0" * 12),
    "does not start at 0": _safetensors({"a": _entry([1], 4, 8)}, b"\0" * 8),
    "rest": _safetensors({"a": _entry([1], 0, 4)}, b"\0" * 5),
    "too short": _safetensors({"a": _entry([2], 0, 8)}, b"\0" * 4),
    "negative shape": _safetensors({"a": _entry([-1, -1], 0, 4)}, b"\0" * 4),
    "overflowing shape": _safetensors({"a": _entry([2**62, 4], 0, 0)}),
    "empty but huge": _safetensors({"a": _entry([0, 2**62, 2**62], 0, 0)}),
    "float shape": _safetensors({"a": _entry([1.0], 0, 4)}, b"\0" * 4),
    "bool offset": _safetensors({"a": _entry([], False, 4)}, b"\0" * 4),
    "unknown dtype": _safetensors({"a": _entry([1], 0, 4, "F33")}, b"\0" * 4),
    "no offsets": _safetensors({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
    "huge file claimed": _safetensors({"a": _entry([2**40], 0, 2**42)}, b"\0" * 4),
}


# pains/security.md row 28
@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_safetensors_header_is_not_believed(name: str, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(BAD_HEADERS[name])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_tensors(file)


def test_a_header_over_our_limit_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("renshu.checkpoints.files.MAX_HEADER", 1000)
    file = tmp_path / "model.safetensors"
    file.write_bytes(_safetensors(b" " * 2000 + b"{}"))
    with pytest.raises(CheckpointError, match="longer than the file or the limit"):
        read_tensors(file)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.text(), st.lists(st.integers(0, 3), max_size=3), max_size=5))
def test_our_safetensors_are_what_safetensors_reads(
    tmp_path: Path, shapes: dict[str, list[int]]
) -> None:
    from safetensors.torch import load_file

    shapes.pop("__metadata__", None)
    kinds = [torch.float32, torch.uint8, torch.bfloat16, torch.int64, torch.bool]
    tensors = {
        name: torch.ones(shape, dtype=kinds[i % len(kinds)])
        for i, (name, shape) in enumerate(shapes.items())
    }
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"".join(pack(tensors, {})))
    for loaded in (load_file(file), read_tensors(file)[0]):
        assert loaded.keys() == tensors.keys()
        assert all(equal_bits(loaded[name], tensor) for name, tensor in tensors.items())


# style.md habit 12: a checkpoint of every released format is read for ever
def test_format_1_is_read_for_ever() -> None:
    """Written once by `python tests/framework/checkpoints/make_fixture.py`, never again."""
    found = read(FIXTURE)
    assert verify(FIXTURE).step == 120
    weight = torch.arange(6.0).reshape(2, 3)
    assert torch.equal(found["model"]["a.weight"], weight)
    assert found["model"]["tied.weight"] is found["model"]["a.weight"]
    assert found["model"]["t.weight"].stride() == (1, 3)
    assert found["state"][0]["exp_avg"].tolist() == [0.5, 0.25]
    assert found["state"][0]["e8"].dtype == torch.float8_e8m0fnu
    assert found["views"][0].tolist() == [1.0, 2.0]
    assert found["views"][0].untyped_storage().data_ptr() == (
        found["views"][1].untyped_storage().data_ptr()
    )
    assert found["milestones"][30] == 2
    assert found["odd"] == (float("inf"), b"\x00", {"a", 1}, 2**200, Path("a/b"))
    assert found["array"].dtype.str == ">i4"
    assert found["array"].tolist() == [1, 2]
