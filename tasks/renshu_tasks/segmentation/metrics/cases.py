"""All figures of one case, a row a class."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from renshu.errors import ConfigError, DataError, unknown
from renshu_tasks.segmentation.case import IGNORE
from renshu_tasks.segmentation.metrics.definitions import DEFINITIONS, Definition, nsd
from renshu_tasks.segmentation.metrics.lesions import lesion_f1
from renshu_tasks.segmentation.metrics.surfaces import Mask, measure

FIGURES = ("dice", "iou", "hd95_mm", "asd_mm", "nsd", "lesion_f1", "volume_error")
"""What is measured; `definitions` says what each means."""

TOLERANCE_MM = 1.0

_STATES = {
    (True, True): "present",
    (True, False): "invented",
    (False, True): "missed",
    (False, False): "absent",
}
"""By whether the class is in the prediction, and in the reference."""

Row = dict[str, Any]
Labels = NDArray[np.integer[Any]]


def case_metrics(
    prediction: Labels,
    reference: Labels,
    *,
    spacing: Sequence[float],
    classes: Mapping[int, str],
    tolerance_mm: float = TOLERANCE_MM,
    definition: str = "monai",
    figures: Sequence[str] = FIGURES,
) -> list[Row]:
    """The figures of one case.

    Args:
        prediction: class numbers, [D, H, W] or [H, W].
        reference: the same shape; voxels of IGNORE are left out of both.
        spacing: mm between voxel centres along each axis.
        classes: numbers and names of the classes to measure; leave out the background, and those
            that nobody looked for in this case.
        tolerance_mm: distance up to which two surfaces agree, of the normalised surface Dice.
        definition: name in DEFINITIONS of how surfaces are measured.
        figures: which of FIGURES; surfaces and lesions cost more than all the others.

    Returns:
        A row a class: class, state, the figures, predicted_ml, reference_ml. The state is
        "present"; "absent" (in neither mask: every figure is None, no case for a mean); "missed"
        (reference only) or "invented" (prediction only): their overlaps are 0, their distances the
        diagonal of the image, their volume error 2, so that they make every mean worse.

    Raises:
        DataError: shapes differ, or one holds no whole numbers.
        ConfigError: spacing, tolerance, definition or a figure is none.
    """
    prediction, reference = _checked(prediction, reference, spacing, tolerance_mm)
    if definition not in DEFINITIONS:
        raise unknown("definition of surface figures", definition, DEFINITIONS)
    if strange := [name for name in figures if name not in FIGURES]:
        raise unknown("figure", strange[0], FIGURES)
    ignored = reference == IGNORE
    if ignored.any():
        prediction = np.where(ignored, reference, prediction)
    last = max(classes, default=0)
    boxes = [
        ndimage.find_objects(labels, last) if last else [] for labels in (prediction, reference)
    ]
    voxel_ml = math.prod(spacing) / 1000 if len(spacing) == 3 else None
    diagonal = math.hypot(*(n * mm for n, mm in zip(reference.shape, spacing, strict=True)))
    rows = []
    for number, name in classes.items():
        box = _union(boxes[0][number - 1], boxes[1][number - 1])
        masks = (prediction[box] == number, reference[box] == number)
        counts = [int(np.count_nonzero(mask)) for mask in masks]
        state = _STATES[counts[0] > 0, counts[1] > 0]
        values: Row = dict.fromkeys(figures)
        if state == "present":
            values = _figures(
                *masks, counts, spacing, tolerance_mm, DEFINITIONS[definition], figures
            )
        elif state != "absent":
            worst = {"hd95_mm": diagonal, "asd_mm": diagonal, "volume_error": 2.0}
            values = {name: worst.get(name, 0.0) for name in figures}
        predicted, expected = (None if voxel_ml is None else n * voxel_ml for n in counts)
        volumes = {"predicted_ml": predicted, "reference_ml": expected}
        rows.append({"class": name, "state": state, **values, **volumes})
    return rows


def _checked(
    prediction: Labels, reference: Labels, spacing: Sequence[float], tolerance_mm: float
) -> tuple[Labels, Labels]:
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        said = f"the prediction has shape {prediction.shape}, the reference {reference.shape}"
        raise DataError(said, mend="resample one onto the other's grid: geometry.resample_mask")
    for what, labels in (("prediction", prediction), ("reference", reference)):
        if labels.dtype.kind not in "iu":
            raise DataError(f"the {what} holds {labels.dtype}", allowed="class numbers (integers)")
    if len(spacing) != reference.ndim or not all(0 < mm < math.inf for mm in spacing):
        raise ConfigError(
            f"spacing {tuple(spacing)} of a mask of {reference.ndim} axes",
            allowed=f"{reference.ndim} positive lengths in mm",
        )
    if not 0 <= tolerance_mm < math.inf:
        raise ConfigError(f"tolerance {tolerance_mm} mm", allowed="a length in mm, 0 or more")
    return prediction, reference


def _union(*boxes: tuple[slice, ...] | None) -> tuple[slice, ...]:
    """The smallest box around those given; an empty one if there is none."""
    there = [box for box in boxes if box is not None]
    if not there:
        return (slice(0, 0),)
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*there, strict=True)
    )


def _figures(
    prediction: Mask,
    reference: Mask,
    counts: Sequence[int],
    spacing: Sequence[float],
    tolerance_mm: float,
    definition: Definition,
    wanted: Sequence[str],
) -> Row:
    """The figures of a structure that is in both masks."""
    both = int(np.count_nonzero(prediction & reference))
    found = {
        "dice": 2 * both / sum(counts),
        "iou": both / (sum(counts) - both),
        "volume_error": 2 * abs(counts[0] - counts[1]) / sum(counts),
    }
    if not {"hd95_mm", "asd_mm", "nsd"}.isdisjoint(wanted):
        surfaces = measure(prediction, reference, spacing, definition.elements)
        found |= {
            "hd95_mm": definition.hd95(surfaces),
            "asd_mm": definition.asd(surfaces),
            "nsd": nsd(surfaces, tolerance_mm),
        }
    if "lesion_f1" in wanted:
        found["lesion_f1"] = lesion_f1(prediction, reference)
    return {name: found[name] for name in wanted}
