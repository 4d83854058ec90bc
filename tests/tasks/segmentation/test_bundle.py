"""MONAI bundles are read as data."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import UNet

from renshu.errors import DataError
from renshu_tasks.segmentation.bundle import read_bundle

ARGUMENTS: dict[str, Any] = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8, 16],
    "strides": [2, 2], "norm": "batch",
}  # fmt: skip


def bundle(folder: Path, **changes: Any) -> Path:
    """A bundle as MONAI writes it."""
    network = UNet(**ARGUMENTS)
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config = {"network_def": {"_target_": "UNet", **ARGUMENTS, **changes}}
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder


def test_network_and_weights_are_those_of_the_bundle(tmp_path: Path) -> None:
    found = read_bundle(bundle(tmp_path))
    same = UNet(**ARGUMENTS)
    same.load_state_dict(torch.load(tmp_path / "models" / "model.pt", weights_only=True))
    image = torch.randn(1, 1, 16, 16, 16)
    assert torch.equal(found(image), same.eval()(image))


@pytest.mark.parametrize(
    "changes",
    [
        {"out_channels": "$__import__('pathlib').Path('owned').touch()"},
        {"norm": ["batch", {"eps": "$__import__('pathlib').Path('owned').touch()"}]},
        {"_target_": "os.system", "command": "touch owned"},
        {"_target_": "subprocess.run"},
        {"norm": {"_target_": "pathlib.Path.touch", "self": "owned"}},
        {"in_channels": "@channels"},
        {"strides": "%other.json#strides"},
        {"command": "touch owned"},
    ],
)
def test_a_malicious_bundle_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    # pains/medical.md row 40
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError):
        read_bundle(bundle(tmp_path, **changes))
    assert not (tmp_path / "owned").exists()


class _Touch:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def test_weights_with_code_in_them_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = bundle(tmp_path)
    torch.save({"model": _Touch()}, folder / "models" / "model.pt")
    with pytest.raises(DataError, match="weights cannot be used"):
        read_bundle(folder)
    assert not (tmp_path / "owned").exists()


def test_an_incomplete_bundle_is_named(tmp_path: Path) -> None:
    folder = bundle(tmp_path)
    (folder / "models" / "model.pt").unlink()
    with pytest.raises(DataError, match="incomplete"):
        read_bundle(folder)
    (folder / "configs" / "inference.json").write_text("{}")
    with pytest.raises(DataError, match="no network_def"):
        read_bundle(folder)
