"""A U-Net for flat pictures whose way down is a classification network of torchvision."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from renshu.errors import ConfigError, near


class EncoderUNet(nn.Module):
    """Logits at the resolution of the picture from a ResNet's features (Ronneberger et al. 2015).

    Args:
        name: resnet18, resnet34 or resnet50.
        channels: of the picture; the first convolution is made anew unless they are 3.
        classes: K.
        weights: name of torchvision's weights (downloaded); None: from scratch.
    """

    def __init__(self, name: str, channels: int, classes: int, weights: str | None = None) -> None:
        super().__init__()
        from torchvision import models

        if weights is not None:
            known = [member.name for member in models.get_model_weights(name)] + ["DEFAULT"]
            if weights not in known:
                raise ConfigError(
                    f"{name} has no weights {weights!r}",
                    where="model.weights",
                    allowed=", ".join(known),
                    mend=near(weights, known),
                )
        net = models.get_model(name, weights=weights)
        if channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        first = nn.Sequential(net.conv1, net.bn1, net.relu)
        self.down = nn.ModuleList(
            [first, nn.Sequential(net.maxpool, net.layer1), net.layer2, net.layer3, net.layer4]
        )
        wide = [64, *(64, 128, 256, 512)]
        if name == "resnet50":
            wide = [64, 256, 512, 1024, 2048]
        up, below = [], wide[-1]
        for beside in (*wide[-2::-1], channels):
            out = max(beside // 2, 32)
            up.append(_block(below + beside, out))
            below = out
        self.up = nn.ModuleList(up)
        self.head = nn.Conv2d(below, classes, 1)

    def forward(self, image: Tensor) -> list[Tensor]:
        """image [B, C, H, W], any size → one tensor of logits [B, K, H, W] in a list."""
        features = [image]
        for part in self.down:
            features.append(part(features[-1]))
        found = features.pop()
        for part in self.up:
            beside = features.pop()
            found = F.interpolate(found, size=beside.shape[2:], mode="bilinear")
            found = part(torch.cat([found, beside], dim=1))
        return [self.head(found)]


def _block(wide: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(wide, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
        nn.Conv2d(out, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(inplace=True),
    )
