"""The options of segmentation. Imports neither torch nor numpy: --help answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from renshu_tasks.common.options import check, check_val_share


@dataclass(kw_only=True)
class DataOptions:
    """Where scans and masks come from, how they are split, prepared and loaded.

    Attributes:
        path: folder with images/ and labels/ (or masks/), raw nnU-Net data set, or .csv table;
            without it the embedded MNI152 template.
        root: folder that a table's paths are in; default: beside it.
        channels: endings of the file names of one case's images, such as ["_t1", "_flair"].
        classes: names of the classes in the order of their numbers, the background first.
        label_map: stored value → class number, such as {"0": 0, "255": 1}.
        ignore_label: stored value of regions that nobody annotated: no loss, no metric.
        image_column: column with the image, several images joined by "|"; default: image.
        mask_column: column with the mask; default: mask.
        patient_column: column with the patient; default: patient, if there.
        split_column: column that says train, val or test; default: split, if there.
        annotated_column: column with the classes that were looked for, joined by "|"; default:
            annotated, if there.
        patient_pattern: regular expression on a case's name whose first group is the patient.
        picture_spacing: millimetres a pixel of PNG and TIFF files, rows then columns; [1, 1] makes
            every distance count pixels.
        mismatch: fail, or resample a mask that lies elsewhere than its image onto the image.
        tolerance_mm: largest displacement of a corner up to which mask and image lie together.
        val_share: share of the training patients kept for validation.
        test_share: share kept for the test; default: 0.2 unless the source has a test part.
        folds: number of parts of a cross-validation; fold says which one is left out.
        fold: the part left out: as the test, or as validation where the source has a test part.
        split_seed: seed of the split; the same seed gives the same parts.
        modality: ct, mr, picture; auto: of the source, else by the intensities.
        normalisation: dataset: clipped and scaled by the foreground of all training cases; case:
            each case by itself; nonzero: the same inside its voxels that are not 0; none; auto:
            planned.
        spacing: target spacing in millimetres, one number an axis (right, front, head).
        patch: patch in voxels, one number an axis.
        batch_size: patches a batch.
        patches: patches an epoch; default: planned.
        foreground: share of the patches that are centred on a class, all classes equally often.
        num_workers: processes that cut patches; cutting from memory needs none.
        cache_mb: prepared cases are kept in so much memory; default: a quarter of what is free.
        cache_dir: keeps prepared cases on disk too, found again by the content of their files.
        masks_dir: folder that `renshu predict` writes masks into.
        max_voxels: largest case that is read.
        allow_outside: let a table or a link name files outside its folder.
        allow_overlap: let the same image be in several parts.
    """

    path: str | None = None
    root: str | None = None
    channels: list[str] | None = None
    classes: list[str] | None = None
    label_map: dict[str, int] | None = None
    ignore_label: int | None = None
    image_column: str | None = None
    mask_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    annotated_column: str | None = None
    patient_pattern: str | None = None
    picture_spacing: list[float] | None = None
    mismatch: Literal["fail", "resample"] = "fail"
    tolerance_mm: float = 0.1
    val_share: float = 0.15
    test_share: float | None = None
    folds: int | None = None
    fold: int = 0
    split_seed: int = 0
    modality: Literal["auto", "ct", "mr", "picture"] = "auto"
    normalisation: Literal["auto", "dataset", "case", "nonzero", "none"] = "auto"
    spacing: list[float] | None = None
    patch: list[int] | None = None
    batch_size: int | None = None
    patches: int | None = None
    foreground: float = 0.5
    num_workers: int = 0
    cache_mb: int | None = None
    cache_dir: str | None = None
    masks_dir: str = "masks"
    max_voxels: int = 1_000_000_000
    allow_outside: bool = False
    allow_overlap: bool = False

    def __post_init__(self) -> None:
        check_val_share(self.val_share)
        last = math.inf if self.folds is None else self.folds - 1
        above = (1e-6, math.inf)
        ranges = {
            "test_share": (0, 0.99),
            "folds": (2, math.inf),
            "fold": (0, last),
            "split_seed": (0, 2**32 - 1),
            "tolerance_mm": (0, math.inf),
            "foreground": (0, 1),
            "num_workers": (0, 4096),
            "cache_mb": (0, math.inf),
            **dict.fromkeys(("picture_spacing", "spacing"), above),
            **dict.fromkeys(("patch", "batch_size", "patches", "max_voxels"), (1, math.inf)),
        }
        check(self, "data", ranges)


@dataclass(kw_only=True)
class ModelOptions:
    """Which network, and where its weights come from.

    Attributes:
        name: dynunet, unet or segresnet of MONAI; for flat pictures also an encoder of torchvision:
            resnet18, resnet34, resnet50.
        width: channels of the finest level; default: planned.
        depth: levels of the network; default: planned.
        fold: voxels along an axis that become channels before the network, and logits behind it
            (space to depth): 1 none, 2 half the resolution inside; default: by the device.
        deep_supervision: the coarser levels of dynunet learn as well.
        weights: weights of a torchvision encoder by name (DEFAULT: downloaded), or a .safetensors
            file of the whole network.
    """

    name: str = "dynunet"
    width: int | None = None
    depth: int | None = None
    fold: int | None = None
    deep_supervision: bool = True
    weights: str | None = None

    def __post_init__(self) -> None:
        check(self, "model", {"width": (1, 1024), "depth": (1, 8), "fold": (1, 4)})


@dataclass(kw_only=True)
class TrainingOptions:
    """How it learns, predicts, and what is chosen on the validation part.

    Attributes:
        loss: dice_ce, or dice_focal for structures that are small or hard.
        optimizer: adamw, or sgd with Nesterov momentum 0.99.
        learning_rate: the highest; it rises linearly, then falls as a cosine to 0. Default: 0.005
            for adamw, 0.01 for sgd.
        warmup: share of the steps in which it rises.
        weight_decay: pull towards 0; not on biases and norms.
        augment: none; light: intensity, mirrored where allowed; standard: turned and scaled too,
            for trainings longer than the default's.
        mirror: axes (0 right, 1 front, 2 head) along which patches and predictions are mirrored.
            Default: none, for where left and right are different classes a mirror image lies.
        class_weights: none; balanced: a class weighs the inverse of its share of the voxels, by
            the square root.
        ema_decay: decay a step of the averaged weights, which are those kept; 0: off.
        full_cases: validation cases that are predicted whole for the logged full-case Dice.
        full_case_epochs: epochs from one full-case Dice to the next; default: three in a run.
        overlap: share by which neighbouring windows overlap when predicting.
        tta: average the mirrored predictions as well; only along `mirror`.
        calibrate: scale the logits by a temperature chosen on the validation part (Guo 2017).
        threshold: decision threshold of two classes: dice: the best on the validation part, or a
            number; several classes take the most probable one.
        surface_tolerance_mm: tolerance of the normalised surface Dice.
        threads: processor threads of torch; default: as torch chooses.
        compile: torch.compile the network.
    """

    loss: Literal["dice_ce", "dice_focal"] = "dice_ce"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = None
    warmup: float = 0.05
    weight_decay: float = 0.01
    augment: Literal["none", "light", "standard"] = "light"
    mirror: list[int] = field(default_factory=list)
    class_weights: Literal["none", "balanced"] = "none"
    ema_decay: float = 0.99
    full_cases: int = 2
    full_case_epochs: int | None = None
    overlap: float = 0.5
    tta: bool = True
    calibrate: bool = True
    threshold: Literal["dice"] | float = "dice"
    surface_tolerance_mm: float = 1.0
    threads: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        ranges = {
            **dict.fromkeys(("warmup", "ema_decay", "threshold"), (0, 1)),
            **dict.fromkeys(("learning_rate", "weight_decay"), (0, 1000)),
            "mirror": (0, 2),
            "full_cases": (0, math.inf),
            "full_case_epochs": (1, math.inf),
            "overlap": (0, 0.95),
            "surface_tolerance_mm": (0, math.inf),
            "threads": (1, 4096),
        }
        check(self, "training", ranges)


@dataclass(kw_only=True)
class SegmentationOptions:
    """Everything that segmentation can be told.

    Attributes:
        data: where the scans come from, how they are split, prepared and loaded.
        model: which network, from which weights.
        training: how it learns and predicts.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
