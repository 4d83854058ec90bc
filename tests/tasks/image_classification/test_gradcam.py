"""Grad-CAM against the closed form, and on every family of networks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from renshu_tasks.image_classification import models
from renshu_tasks.image_classification.gradcam import grad_cam


class LinearOnPooled(nn.Module):
    """Feature maps, their mean, a linear head: where Grad-CAM equals CAM (Zhou 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(image).mean(dim=(2, 3)))


def test_a_linear_head_on_pooled_maps_gives_cam() -> None:
    model, image = LinearOnPooled(), torch.randn(3, 3, 6, 6)
    target = torch.tensor([2, 0, 3])
    found = grad_cam(model, model.features, image, target)
    maps = model.features(image)
    expected = torch.einsum("bk,bkhw->bhw", model.head.weight[target], maps).relu() / 36
    assert torch.allclose(found, expected, atol=1e-6)


def test_it_leaves_gradients_modes_and_hooks_as_they_were() -> None:
    model = LinearOnPooled()
    model.requires_grad_(False)
    heat = grad_cam(model, model.features, torch.randn(1, 3, 6, 6), torch.tensor([1]))
    assert heat.shape == (1, 6, 6) and heat.max() > 0
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert not model.features._forward_hooks and model.training


@pytest.mark.parametrize(
    "name",
    ["small", "resnet18", "densenet121", "mobilenet_v3_small", "mnasnet0_5", "regnet_y_400mf"],
)
def test_every_family_has_a_layer_to_look_at(name: str) -> None:
    model = models.build_model(name, channels=3, classes=4, image_size=64).eval()
    layer = models.cam_layer(model)
    assert layer is not None
    heat = grad_cam(model, layer, torch.rand(2, 3, 64, 64), torch.tensor([0, 3]))
    assert heat.shape == (2, 64, 64) and heat.isfinite().all() and (heat >= 0).all()


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_transformers_have_no_feature_maps(name: str) -> None:
    with torch.device("meta"):
        model = models.build_model(name, channels=3, classes=4, image_size=224)
    assert models.cam_layer(model) is None
