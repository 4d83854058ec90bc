"""The options of image classification. Imports neither torch nor numpy, so --help answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


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


@dataclass(kw_only=True)
class ModelOptions:
    """Which network."""


@dataclass(kw_only=True)
class TrainingOptions:
    """How it learns."""


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
