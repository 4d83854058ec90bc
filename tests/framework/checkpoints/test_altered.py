"""A checkpoint that is not as it was written is refused, with the name of the file."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

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
from renshu.errors import CheckpointError

from .conftest import FILES, make_state

pytestmark = pytest.mark.usefixtures("no_fsync")


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


def test_state_that_fits_its_sums_but_not_its_tensors_is_refused(saved: Path) -> None:
    """A hostile writer can make every sum fit: names, shapes and dtypes must agree as well."""
    for old, new in (('"shape": [4, 3]', '"shape": [3, 4]'), ('"bfloat16"', '"float16"')):
        text = (saved / "state.json").read_bytes()
        changed = text.replace(old.encode(), new.encode())
        assert changed != text
        (saved / "state.json").write_bytes(changed)
        entry = {"sha256": hashlib.sha256(changed).hexdigest(), "bytes": len(changed)}
        _reseal(saved, files={**read_manifest(saved).files, "state.json": entry})
        verify(saved)
        for call in (read, read_weights):
            with pytest.raises(CheckpointError, match=r"state\.json"):
                call(saved)
