"""Networks: shapes, heads, stems, stages, and weights from files only."""

from __future__ import annotations

import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from renshu.errors import ConfigError
from renshu_tasks.image_classification import models


def build(name: str = "small", **arguments: Any) -> torch.nn.Module:
    chosen = {"channels": 1, "classes": 7, "image_size": 8, "width": 8} | arguments
    return models.build_model(name, **chosen)


@pytest.mark.parametrize("side", [8, 9, 16, 28, 32, 64])
def test_small_takes_pictures_of_8_to_64_pixels(side: int) -> None:
    model = build(image_size=side, channels=3)
    assert model(torch.rand(2, 3, side, side)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1", "vit_b_16"])
def test_a_network_of_torchvision_gets_head_and_stem_for_the_task(name: str) -> None:
    side = 224 if name == "vit_b_16" else 64
    model = build(name, channels=1, image_size=side).eval()
    assert model(torch.rand(1, 1, side, side)).shape == (1, 7)
    assert sum(p.shape[0] == 7 for p in models.head_parameters(model)) == 2


def test_resnet18_takes_32_pixels() -> None:
    model = build("resnet18", channels=3, image_size=32)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_a_grey_stem_answers_a_grey_picture_like_the_colour_stem() -> None:
    colour = build("resnet18", channels=3).conv1
    torch.manual_seed(0)
    first = models.build_model("resnet18", channels=3, classes=2, image_size=64).conv1
    torch.manual_seed(0)
    grey = models.build_model("resnet18", channels=1, classes=2, image_size=64).conv1
    picture = torch.rand(1, 1, 16, 16)
    assert colour.in_channels == 3
    assert torch.allclose(grey(picture), first(picture.expand(-1, 3, -1, -1)), atol=1e-5)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'resnet18'"):
        build("resnet_18")


@pytest.mark.parametrize(
    "name", ["small", "resnet18", "efficientnet_b0", "vit_b_16", "densenet121"]
)
def test_stages_hold_every_parameter_once_and_end_with_the_head(name: str) -> None:
    model = build(name)
    found = models.stages(model)
    names = [member for members in found.values() for member in members]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert len(found) >= 4
    last = [dict(model.named_parameters())[member] for member in list(found.values())[-1]]
    assert {id(p) for p in last} == {id(p) for p in models.head_parameters(model)}


def test_stages_of_resnet_are_in_the_order_of_the_data() -> None:
    order = ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert list(models.stages(build("resnet18"))) == order


def test_local_weights_are_loaded_except_for_the_head(tmp_path: Path) -> None:
    source = build("resnet18", classes=3, channels=3)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = build("resnet18", channels=3, weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(model.bn1.running_mean, source.bn1.running_mean)
    assert model.fc.out_features == 7


def test_weights_of_a_module_are_found_below_its_prefix(tmp_path: Path) -> None:
    source = build()
    state = {f"model.{key}": value for key, value in source.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    model = build(weights=str(tmp_path / "w.safetensors"))
    assert torch.equal(model.head.weight, source.head.weight)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    save_file(build(width=4).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"stem\.0|blocks\.0"):
        build(weights=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.bin", "w.pkl"])
def test_pickles_are_refused_unopened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pains/security.md row 1
    def never(*_: object, **__: object) -> None:
        raise AssertionError("a pickle was opened")

    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    monkeypatch.setattr(torch, "load", never)
    monkeypatch.setattr("pickle.Unpickler", never)
    for model in ("small", "resnet18"):
        with pytest.raises(ConfigError, match=r"save_file"):
            build(model, weights=str(tmp_path / name))


def test_a_pickle_under_another_name_is_refused(tmp_path: Path) -> None:
    # pains/security.md row 1
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match="not a safetensors file"):
        build(weights=str(tmp_path / "w.safetensors"))


def test_a_missing_file_and_an_unknown_name_of_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        build(weights=str(tmp_path / "none.safetensors"))
    with pytest.raises(ConfigError, match="IMAGENET1K_V1"):
        build("resnet18", weights="IMAGENET1K_V7")


def test_without_a_network_named_weights_say_how_to_use_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(ConfigError, match=r"--model\.weights path/to/file\.safetensors"):
        build("resnet18", weights="DEFAULT")


def test_small_has_no_weights_by_name() -> None:
    with pytest.raises(ConfigError, match="small has no pretrained weights"):
        build(weights="DEFAULT")
