"""The networks: a small one for small pictures, torchvision's by name, each with its own head."""

from __future__ import annotations

import urllib.error
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from renshu.errors import ConfigError, near

_FEATURES = {"features", "encoder", "layers", "trunk_output"}
"""Containers whose children are stages of their own."""

_CAM_LAYERS = (
    *("layer4", "Mixed_7c", "inception5b", "conv5"),
    *("trunk_output", "features", "layers", "blocks"),
)
"""Where a family of networks has its last feature maps, [B, C, H, W]."""


class _ConvNorm(nn.Sequential):
    """3×3 convolution, batch norm, ReLU: [B, in, H, W] → [B, out, H, W]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class _Residual(nn.Module):
    """Two convolutions beside the identity: [B, C, H, W] → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_ConvNorm(channels, channels), _ConvNorm(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class SmallNet(nn.Module):
    """A shallow residual network for pictures of 8 to 64 pixels, in the manner of ResNet-9.

    The stem keeps the size; each block halves it and doubles the channels. Pictures from 32 pixels
    have three blocks, smaller ones two.

    Args:
        channels: of the pictures.
        classes: number of logits.
        width: channels of the stem.
        blocks: how many times the size is halved.
        dropout: share of features set to zero before the head.
    """

    def __init__(
        self, channels: int, classes: int, width: int = 32, blocks: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(_ConvNorm(channels, width), _ConvNorm(width, width))
        self.blocks = nn.Sequential()
        for index in range(blocks):
            channels_in, channels_out = width << index, width << (index + 1)
            self.blocks.append(
                nn.Sequential(
                    nn.MaxPool2d(2), _ConvNorm(channels_in, channels_out), _Residual(channels_out)
                )
            )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width << blocks, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images [B, C, H, W], sides of at least 8 → logits [B, classes]."""
        features = self.blocks(self.stem(image)).amax(dim=(2, 3))
        return self.head(self.dropout(features))


def build_model(
    name: str,
    *,
    channels: int,
    classes: int,
    image_size: int,
    width: int = 32,
    dropout: float | None = None,
    weights: str | None = None,
) -> nn.Module:
    """The network `name` with a new head of `classes` logits and a stem for `channels`.

    Raises ConfigError for an unknown name, for weights that do not fit or cannot be had.
    """
    if name == "small":
        blocks = 3 if image_size >= 32 else 2
        model: nn.Module = SmallNet(
            channels, classes, width, blocks, 0.1 if dropout is None else dropout
        )
        if weights is not None and not _is_file_name(weights):
            raise ConfigError(
                f"small has no pretrained weights {weights!r}",
                where="model.weights",
                allowed="a .safetensors file",
            )
        if weights is not None:
            _load_file(model, weights)
        return model
    return _torchvision(name, channels, classes, dropout, weights)


def _torchvision(
    name: str, channels: int, classes: int, dropout: float | None, weights: str | None
) -> nn.Module:
    from torchvision import models

    names = models.list_models(module=models)
    if name not in names:
        raise ConfigError(
            f"there is no model {name!r}",
            where="model.name",
            allowed="small, or a classification model of torchvision",
            mend=near(name, ["small", *names]),
        )
    named = weights is not None and not _is_file_name(weights)
    init = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = _download(name, weights) if named and weights else models.get_model(name, **init)
    if weights is not None and not named:
        _load_file(model, weights)
    if getattr(model, "aux_logits", False):  # the side heads of googlenet and inception_v3
        for side in ("aux1", "aux2", "AuxLogits"):
            if hasattr(model, side):
                setattr(model, side, None)
        model.aux_logits = False  # type: ignore[assignment]
    _replace_stem(model, channels)
    _replace_head(model, classes)
    if dropout is not None:
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = dropout
    return model


def _download(name: str, weights: str) -> nn.Module:
    """torchvision's own pretrained weights, by name; needs a network the first time."""
    from torchvision import models

    allowed = [member.name for member in models.get_model_weights(name)]
    if weights not in ("DEFAULT", *allowed):
        raise ConfigError(
            f"{name} has no pretrained weights {weights!r}",
            where="model.weights",
            allowed=", ".join(["DEFAULT", *allowed, "a .safetensors file"]),
            mend=near(weights, ["DEFAULT", *allowed]),
        )
    try:
        return models.get_model(name, weights=weights)
    except (urllib.error.URLError, OSError) as error:
        raise ConfigError(
            f"the weights {weights} of {name} could not be downloaded: {error}",
            where="model.weights",
            mend="save them as .safetensors where there is a network, "
            "then --model.weights path/to/file.safetensors",
        ) from error


_PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle", ".tar"}


def _is_file_name(weights: str) -> bool:
    suffix = Path(weights).suffix.lower()
    return suffix == ".safetensors" or suffix in _PICKLES or "/" in weights or "\\" in weights


def _load_file(model: nn.Module, weights: str) -> None:
    """Load a .safetensors file into `model`; only the head may be missing or of another size."""
    state = read_weights(Path(weights))
    if state and all(key.startswith("model.") for key in state):  # out of one of our checkpoints
        state = {key.removeprefix("model."): value for key, value in state.items()}
    own = model.state_dict()
    head = head_name(model)
    misfits = sorted(
        key
        for key in own.keys() | state.keys()
        if key not in own or key not in state or own[key].shape != state[key].shape
    )
    wrong = [key for key in misfits if not key.startswith(head + ".")]
    if wrong:
        raise ConfigError(
            f"the weights do not fit the model: {len(wrong)} of {len(own)} tensors differ",
            where=f"{weights}: " + ", ".join(wrong[:5]) + (", …" if len(wrong) > 5 else ""),
            allowed="the same names and shapes, except for the head",
            mend="name the model that the file was made with: --model.name",
        )
    model.load_state_dict({k: v for k, v in state.items() if k not in misfits}, strict=False)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file. Anything else is refused, never unpickled."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.suffix.lower() != ".safetensors":
        raise ConfigError(
            f"weights are read from .safetensors files only, not {path.suffix or 'this'}",
            where=path,
            mend="if you trust the file, convert it once: load it with torch and write "
            "safetensors.torch.save_file(state_dict, 'model.safetensors')",
        )
    if not path.is_file():
        raise ConfigError("there is no such file of weights", where=path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"this is not a safetensors file: {error}", where=path) from error


def head_name(model: nn.Module) -> str:
    """The name of the last linear (or 1×1 convolution) layer, which gives the logits."""
    heads = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not heads:  # SqueezeNet's classifier is a convolution
        heads = [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    return heads[-1]


def head_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the last layer."""
    return list(model.get_submodule(head_name(model)).parameters())


def _replace_head(model: nn.Module, classes: int) -> None:
    name = head_name(model)
    old = model.get_submodule(name)
    if isinstance(old, nn.Conv2d):
        new: nn.Module = nn.Conv2d(old.in_channels, classes, 1)
    else:
        assert isinstance(old, nn.Linear)
        new = nn.Linear(old.in_features, classes)
    _set(model, name, new)


def _replace_stem(model: nn.Module, channels: int) -> None:
    """Another number of input channels: each gets the mean filter, so the sums keep their size."""
    name, old = next((n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d))
    if old.in_channels == channels:
        return
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,  # type: ignore[arg-type]
        old.stride,  # type: ignore[arg-type]
        old.padding,  # type: ignore[arg-type]
        bias=old.bias is not None,
    )
    with torch.no_grad():
        mean = old.weight.mean(dim=1, keepdim=True) * (old.in_channels / channels)
        new.weight.copy_(mean.expand_as(new.weight))
        if old.bias is not None and new.bias is not None:
            new.bias.copy_(old.bias)
    _set(model, name, new)


def _set(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, part)


def stages(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters by stage, from the stem to the head: what is frozen together."""
    head = head_name(model)
    found: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        found.setdefault(_stage(name, head), []).append(name)
    found[head] = found.pop(head)  # last, whatever the order of definition
    return found


def _stage(name: str, head: str) -> str:
    """`features.3.block.0.weight` → `features.3`; a bare parameter belongs to the stem."""
    if name.startswith(head + "."):
        return head
    parts = name.split(".")
    depth = 1
    while depth < len(parts) - 1 and parts[depth - 1] in _FEATURES | {"blocks"}:
        depth += 1
    return ".".join(parts[:depth]) if len(parts) > 1 else "stem"


def stage_modules(model: nn.Module, stage_names: Iterable[str]) -> list[nn.Module]:
    """The modules of the named stages."""
    modules = dict(model.named_modules())
    return [modules[name] for name in stage_names if name in modules]


def cam_layer(model: nn.Module) -> nn.Module | None:
    """The layer whose feature maps Grad-CAM reads, or None where there are none (transformers)."""
    if isinstance(model, SmallNet):
        return model.blocks[-2]  # the last block leaves too few pixels to show a place
    if hasattr(model, "permute") or hasattr(model, "encoder"):  # Swin, ViT
        return None
    layer = next((getattr(model, name) for name in _CAM_LAYERS if hasattr(model, name)), None)
    return layer[-1] if isinstance(layer, nn.ModuleList) else layer
