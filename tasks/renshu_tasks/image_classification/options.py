"""The options of image classification. Imports neither torch nor numpy: --help answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from renshu_tasks.common.options import check, check_test_share, check_val_share


@dataclass(kw_only=True)
class DataOptions:
    """Where the pictures and labels come from, and how they are split and loaded.

    Attributes:
        path: image folder, .csv manifest, .npz arrays, saved Hugging Face data set, parquet folder
            or "torchvision:NAME"; without it the embedded digits.
        root: folder that a manifest's paths and torchvision's files are in; default: beside path.
        download: let torchvision fetch a data set that is not under root.
        classes: the allowed labels in their order; default: those found, sorted.
        image_column: name of the column with the picture or its path.
        label_column: name of the column with the label.
        split_column: name of the column that says train, val or test; default: "split" if there.
        group_column: column of what must stay together (patient, video); default: "group" if there.
        multi_label: a picture may have several labels, or none.
        label_separator: what stands between the labels of a multi-label table.
        val_share: share of the training pictures kept for validation.
        test_share: share kept for the test; default: 0.2 unless the source has parts of its own.
        folds: number of parts of a cross-validation; fold says which one is left out.
        fold: the part left out: as the test, or as validation where the source has a test part.
        split_seed: seed of the split; the same seed gives the same parts.
        image_size: side of the square pictures in pixels; default: their own if equal, else 224.
        channels: 1 (grey), 3 (colour) or auto: 1 if all pictures are grey.
        mean: mean of each channel in [0, 1] to subtract; auto: of the training part.
        std: deviation of each channel to divide by; auto: of the training part.
        batch_size: pictures a batch; default: from the table for this device.
        num_workers: processes that load; default: from the table for this device.
        sampler: none, or balanced: each class is drawn equally often.
        on_bad_image: fail, or skip: leave out pictures that cannot be read, and say which.
        max_pixels: largest picture that is decoded, in pixels.
        in_memory_mb: pictures that fit in so many megabytes are decoded once and kept.
        allow_outside: let a manifest or a link name files outside its folder.
        allow_overlap: let the same picture be in several parts.
    """

    path: str | None = None
    root: str | None = None
    download: bool = False
    classes: list[str] | None = None
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    group_column: str | None = None
    multi_label: bool = False
    label_separator: str = "|"
    val_share: float = 0.15
    test_share: float | None = None
    folds: int | None = None
    fold: int = 0
    split_seed: int = 0
    image_size: int | None = None
    channels: Literal["auto", 1, 3] = "auto"
    mean: Literal["auto"] | list[float] = "auto"
    std: Literal["auto"] | list[float] = "auto"
    batch_size: int | None = None
    num_workers: int | None = None
    sampler: Literal["none", "balanced"] = "none"
    on_bad_image: Literal["fail", "skip"] = "fail"
    max_pixels: int = 80_000_000
    in_memory_mb: int = 1024
    allow_outside: bool = False
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        check_val_share(self.val_share)
        check_test_share(self.test_share)
        counts: dict[str, tuple[float, float]] = dict.fromkeys(
            ("batch_size", "image_size", "max_pixels"), (1, math.inf)
        )
        counts |= dict.fromkeys(("num_workers", "in_memory_mb"), (0, math.inf))
        last = math.inf if self.folds is None else self.folds - 1
        cuts = {"folds": (2, math.inf), "fold": (0, last), "split_seed": (0, 2**32 - 1)}
        check(self, "data", counts | cuts)


@dataclass(kw_only=True)
class ModelOptions:
    """Which network, and where its weights come from.

    Attributes:
        name: small (for pictures of 8 to 64 pixels), or a classification network of torchvision by
            its name there, such as resnet18, efficientnet_b0, convnext_tiny, vit_b_16.
        width: channels of the first block of small.
        weights: pretrained weights: a .safetensors file, or a name that torchvision knows (DEFAULT,
            IMAGENET1K_V1: downloaded). Default: from scratch.
        dropout: share of the features set to zero; default: 0.1 before the head of small, and what
            the others have of their own.
    """

    name: str = "small"
    width: int = 32
    weights: str | None = None
    dropout: float | None = None

    def __post_init__(self) -> None:
        check(self, "model", {"width": (1, 4096), "dropout": (0, 0.99)})


@dataclass(kw_only=True)
class TrainingOptions:
    """How it learns, and what is chosen on the validation part.

    Attributes:
        optimizer: adamw, or sgd with Nesterov momentum 0.9.
        learning_rate: the highest; it rises linearly, then falls as a cosine to 0. Default: 0.003
            for small, 0.001 for other networks, 0.0002 for those with pretrained weights.
        warmup: share of the steps in which it rises.
        weight_decay: pull towards 0; not on biases and norms.
        augment: none; light: crops and mirror images; standard: small rotations, sizes, brightness
            and contrast as well; characters: rotation, shift, shear and size, never mirrored; auto:
            characters for grey pictures up to 32 pixels, else light up to 64 and standard above.
        mixup: α of mixup (Zhang 2018); 0: off.
        cutmix: α of cutmix (Yun 2019); 0: off. With both on each picture draws which.
        label_smoothing: share of the label's weight that is spread over all classes.
        class_weights: none; balanced: a class weighs the inverse of its frequency in training.
        ema_decay: decay a step of the averaged weights, which are those kept; 0: off.
        tune: what learns: all; head: a linear probe; staged: from the head downwards, one more
            stage every unfreeze_every epochs.
        unfreeze_every: epochs until the next stage learns as well.
        layer_decay: factor of the learning rate from each stage to the one below it.
        tta: averaged views when predicting: none, flip, affine (small turns and shifts), or auto:
            affine for characters, else none.
        calibrate: scale the logits by a temperature chosen on the validation part (Guo 2017).
        threshold: decision threshold of two-class and multi-label tasks: f1: the best on the
            validation part, or a number.
        channels_last: memory format of the pictures; default: from the table for this device.
        threads: processor threads of torch; default: from the table for this device.
        compile: torch.compile the network; default: from the table for this device.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = None
    warmup: float = 0.1
    weight_decay: float = 0.05
    augment: Literal["auto", "none", "light", "standard", "characters"] = "auto"
    mixup: float = 0.0
    cutmix: float = 0.0
    label_smoothing: float = 0.05
    class_weights: Literal["none", "balanced"] = "none"
    ema_decay: float = 0.99
    tune: Literal["all", "head", "staged"] = "all"
    unfreeze_every: int = 1
    layer_decay: float = 1.0
    tta: Literal["auto", "none", "flip", "affine"] = "auto"
    calibrate: bool = True
    threshold: Literal["f1"] | float = "f1"
    channels_last: bool | None = None
    threads: int | None = None
    compile: bool | None = None

    def __post_init__(self) -> None:
        names = ("warmup", "label_smoothing", "ema_decay", "layer_decay")
        shares: dict[str, tuple[float, float]] = dict.fromkeys(names, (0, 1))
        check(
            self,
            "training",
            shares | {"unfreeze_every": (1, 10**6), "threshold": (0, 1), "threads": (1, 4096)},
        )
        sizes = ("mixup", "cutmix", "weight_decay", "learning_rate")
        check(self, "training", dict.fromkeys(sizes, (0, 1000)))


@dataclass(kw_only=True)
class ImageClassificationOptions:
    """Everything that image classification can be told.

    Attributes:
        data: where the pictures come from, how they are split and loaded.
        model: which network, from which weights.
        training: how it learns.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
