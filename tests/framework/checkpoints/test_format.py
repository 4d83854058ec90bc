"""The folder on disk: open to others, checked file by file, ordered by what it records."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
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
from renshu.errors import CheckpointError

from .conftest import FILES, make_state
from .helpers import equal_bits, same

pytestmark = pytest.mark.usefixtures("no_fsync")
FIXTURE = Path(__file__).parents[2] / "fixtures" / "checkpoint-format-1"


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
