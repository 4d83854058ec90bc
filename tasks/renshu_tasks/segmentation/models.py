"""Networks from a plan: MONAI's for 3-D and 2-D, and U-Nets on torchvision's encoders for 2-D."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from renshu.errors import ConfigError
from renshu_tasks.segmentation.plan import Plan


def build_network(plan: Plan, weights: str | None = None) -> nn.Module:
    """The plan's network: float [B, C, *patch] → a list of logits [B, K, …], the finest first.

    `weights` are those of a torchvision encoder by name, or a .safetensors file of the network.
    """
    channels, classes = len(plan.intensities), len(plan.classes)
    folded = int(np.prod(plan.fold))
    if plan.network.startswith("resnet"):
        from renshu_tasks.segmentation.encoders import EncoderUNet

        named = weights if weights and not weights.endswith(".safetensors") else None
        network: nn.Module = EncoderUNet(plan.network, channels, classes, named)
    else:
        network = _MONAI[plan.network](plan, channels * folded, classes * folded)
        network = Folded(network, plan.fold) if folded > 1 else network
    if weights and weights.endswith(".safetensors"):
        load_file(network, Path(weights))
    elif weights and not plan.network.startswith("resnet"):
        raise ConfigError(
            f"{plan.network} has no weights by name",
            where=f"model.weights {weights}",
            allowed="a .safetensors file",
        )
    return network


def load_file(network: nn.Module, file: Path) -> None:
    """Weights from a .safetensors file; raises ConfigError where they are another network's."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model  # MONAI's networks name a tensor twice

    try:
        load_model(network, file)
    except (OSError, SafetensorError, RuntimeError) as error:
        said = str(error).split("\n")[0]
        raise ConfigError(f"the weights do not fit: {said}", where=file) from error


class Folded(nn.Module):
    """A network at a fraction of the resolution that loses no voxel.

    Blocks of voxels become channels before it, and channels of its logits become voxels behind it:
    space to depth and back (Shi et al. 2016, sub-pixel convolution).
    """

    def __init__(self, network: nn.Module, fold: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.fold = network, fold
        axes = range(len(fold))
        self._down = [0, 1, *(3 + 2 * a for a in axes), *(2 + 2 * a for a in axes)]
        self._up = [0, 1, *(n for a in axes for n in (2 + len(fold) + a, 2 + a))]

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.unfolded(logits) for logits in self.network(self.folded(image))]

    def folded(self, image: Tensor) -> Tensor:
        """[B, C, *size] → [B, C · block, *size / fold]."""
        size = [n // f for n, f in zip(image.shape[2:], self.fold, strict=True)]
        split = [n for pair in zip(size, self.fold, strict=True) for n in pair]
        blocks = image.reshape(*image.shape[:2], *split).permute(self._down)
        return blocks.reshape(image.shape[0], -1, *size)

    def unfolded(self, logits: Tensor) -> Tensor:
        """[B, K · block, *size] → [B, K, *size · fold]; undoes `folded`."""
        size = logits.shape[2:]
        channels = logits.shape[1] // int(np.prod(self.fold))
        blocks = logits.reshape(logits.shape[0], channels, *self.fold, *size).permute(self._up)
        whole = [n * f for n, f in zip(size, self.fold, strict=True)]
        return blocks.reshape(logits.shape[0], channels, *whole)


class DeeplySupervised(nn.Module):
    """MONAI's DynUNet, whose coarser outputs keep their own resolution.

    MONAI enlarges them all and stacks them; comparing each with a smaller mask is the same loss
    as nnU-Net's at a fraction of the time.
    """

    def __init__(self, plan: Plan, channels: int, classes: int) -> None:
        super().__init__()
        from monai.networks.nets import DynUNet

        if len(plan.filters) < 3:
            raise ConfigError(
                f"dynunet with {len(plan.filters)} levels",
                where="model.depth",
                allowed="3 levels or more",
                mend="--model.name unet, or larger patches",
            )
        self.net = DynUNet(
            spatial_dims=plan.axes,
            in_channels=channels,
            out_channels=classes,
            kernel_size=plan.kernels,
            strides=plan.strides,
            upsample_kernel_size=plan.strides[1:],
            filters=plan.filters,
            deep_supervision=plan.deep_supervision,
            deep_supr_num=max(1, len(plan.filters) - 2),
        )
        self._several = plan.deep_supervision
        self.net.deep_supervision = False  # its forward then leaves the heads as they are

    def forward(self, image: Tensor) -> list[Tensor]:
        finest = self.net(image)
        return [finest, *self.net.heads] if self.training and self._several else [finest]


class Single(nn.Module):
    """A network with one output."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.net(image)]


def _unet(plan: Plan, channels: int, classes: int) -> nn.Module:
    from monai.networks.nets import UNet

    return Single(
        UNet(
            spatial_dims=plan.axes,
            in_channels=channels,
            out_channels=classes,
            channels=plan.filters,
            strides=plan.strides[1:],
            num_res_units=2,
        )
    )


def _segresnet(plan: Plan, channels: int, classes: int) -> nn.Module:
    from monai.networks.nets import SegResNet

    levels = len(plan.filters)
    return Single(
        SegResNet(
            spatial_dims=plan.axes,
            in_channels=channels,
            out_channels=classes,
            init_filters=plan.filters[0],
            blocks_down=(1, *(2,) * (levels - 1)),
            blocks_up=(1,) * (levels - 1),
        )
    )


_MONAI = {"dynunet": DeeplySupervised, "unet": _unet, "segresnet": _segresnet}


def parameter_groups(network: nn.Module, decay: float) -> list[dict[str, object]]:
    """Two groups for an optimiser: biases and norms (one-dimensional) are not decayed."""
    flat = [p for p in network.parameters() if p.ndim <= 1]
    rest = [p for p in network.parameters() if p.ndim > 1]
    return [{"params": rest, "weight_decay": decay}, {"params": flat, "weight_decay": 0.0}]
