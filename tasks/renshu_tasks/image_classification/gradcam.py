"""Grad-CAM: which places of a picture a class was read from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def grad_cam(model: nn.Module, layer: nn.Module, image: Tensor, target: Tensor) -> Tensor:
    """Selvaraju et al. 2017, "Grad-CAM".

    Args:
        model: gives logits [B, K]; its mode is left as it is, its gradients untouched.
        layer: a part of it whose output is feature maps [B, C, h, w].
        image: normalised [B, C, H, W].
        target: int64 [B], the class to explain.

    Returns:
        float32 [B, H, W]: 0 where nothing spoke for the class; not scaled.
    """
    maps: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        maps.append(output if output.requires_grad else output.detach().requires_grad_())
        return maps[0].clone()  # what follows may work in place

    handle = layer.register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(image)
            chosen = logits.gather(1, target[:, None]).sum()
            (gradient,) = torch.autograd.grad(chosen, maps[0])
    finally:
        handle.remove()
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat = F.relu((weights * maps[0].detach()).sum(dim=1, keepdim=True))
    size = (image.shape[-2], image.shape[-1])
    return F.interpolate(heat, size=size, mode="bilinear", align_corners=False)[:, 0]
