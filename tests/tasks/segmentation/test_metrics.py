"""Every figure against the library it is named after, on analytic shapes and random masks."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the medical extra")
pytest.importorskip("monai", reason="needs the medical extra")

from scipy import ndimage

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation import metrics

SPACING = (0.5, 0.5, 3.0)


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    places = np.indices(shape) - np.reshape(centre, (-1, *[1] * len(shape)))
    return ((places**2).sum(0) <= radius**2).astype(np.int16)


def blob(seed: int, shape: tuple[int, ...] = (24, 20, 16)) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return (noise > np.quantile(noise, 0.8)).astype(np.int16)


def box(shape: tuple[int, ...], *sides: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.int16)
    mask[tuple(slice(*side) for side in sides)] = 1
    return mask


PAIRS = {
    "balls": (ball((30, 30, 20), (14, 14, 9), 8), ball((30, 30, 20), (16, 13, 10), 7)),
    "boxes": (box((12, 12, 12), (1, 5), (2, 9), (3, 7)), box((12, 12, 12), (0, 6), (2, 9), (1, 7))),
    "whole image": (np.ones((6, 7, 5), np.int16), box((6, 7, 5), (0, 3), (0, 7), (1, 4))),
    "one voxel": (box((9, 9, 9), (1, 2), (1, 2), (1, 2)), box((9, 9, 9), (7, 8), (7, 8), (7, 8))),
    "random": (blob(1), blob(2)),
    "random too": (blob(3), blob(4)),
    "flat": (ball((40, 40), (18, 18), 9), ball((40, 40), (20, 21), 11)),
}


def only(prediction: np.ndarray, reference: np.ndarray, **options: Any) -> dict[str, Any]:
    options = {"spacing": SPACING[: reference.ndim], "classes": {1: "lesion"}} | options
    (row,) = metrics.case_metrics(prediction, reference, **options)
    return row


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI's own call
@pytest.mark.parametrize("pair", PAIRS)
def test_monai(pair: str) -> None:  # pains/medical.md row 21, 22
    import torch
    from monai.metrics import (
        DiceMetric,
        HausdorffDistanceMetric,
        MeanIoU,
        SurfaceDiceMetric,
        SurfaceDistanceMetric,
    )

    prediction, reference = PAIRS[pair]
    row = only(prediction, reference, tolerance_mm=1.5)
    masks = [torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference)]
    spacing = list(SPACING[: reference.ndim])
    hd95 = HausdorffDistanceMetric(include_background=True, percentile=95)
    asd = SurfaceDistanceMetric(include_background=True, symmetric=True)
    nsd = SurfaceDiceMetric([1.5], include_background=True)
    assert row["hd95_mm"] == pytest.approx(float(hd95(*masks, spacing=spacing)), rel=1e-5)
    assert row["asd_mm"] == pytest.approx(float(asd(*masks, spacing=spacing)), rel=1e-5)
    assert row["nsd"] == pytest.approx(float(nsd(*masks, spacing=spacing)), rel=1e-5)
    assert row["dice"] == pytest.approx(float(DiceMetric()(*masks)), rel=1e-5)
    assert row["iou"] == pytest.approx(float(MeanIoU()(*masks)), rel=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_medpy(pair: str) -> None:
    medpy = pytest.importorskip("medpy.metric.binary", reason="MedPy is not installed")
    prediction, reference = PAIRS[pair]
    row = only(prediction, reference, definition="medpy")
    spacing = SPACING[: reference.ndim]
    assert row["hd95_mm"] == pytest.approx(medpy.hd95(prediction, reference, spacing), rel=1e-6)
    assert row["asd_mm"] == pytest.approx(medpy.assd(prediction, reference, spacing), rel=1e-6)
    assert row["dice"] == pytest.approx(medpy.dc(prediction, reference))


@pytest.mark.parametrize("pair", PAIRS)
def test_surface_distance(pair: str) -> None:
    theirs = pytest.importorskip("surface_distance", reason="surface-distance is not installed")
    prediction, reference = PAIRS[pair]
    row = only(prediction, reference, definition="surface-distance", tolerance_mm=1.5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads scipy's old name spaces
        found = theirs.compute_surface_distances(
            reference > 0, prediction > 0, SPACING[: reference.ndim]
        )
    asd = theirs.compute_average_surface_distance(found)
    nsd = theirs.compute_surface_dice_at_tolerance(found, 1.5)
    assert row["hd95_mm"] == pytest.approx(theirs.compute_robust_hausdorff(found, 95), rel=1e-5)
    assert row["asd_mm"] == pytest.approx(np.mean(asd), rel=1e-5)
    assert row["nsd"] == pytest.approx(nsd, rel=1e-5)


@pytest.mark.parametrize("pair", PAIRS)
def test_simple_itk_agrees_on_overlap_and_volume(pair: str) -> None:
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    prediction, reference = PAIRS[pair]
    row = only(prediction, reference)
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(sitk.GetImageFromArray(mask) for mask in (prediction, reference)))
    assert row["dice"] == pytest.approx(measures.GetDiceCoefficient(1))
    assert row["iou"] == pytest.approx(measures.GetJaccardCoefficient(1))
    assert row["volume_error"] == pytest.approx(abs(measures.GetVolumeSimilarity(1)))


def test_the_definitions_of_hd95_differ_by_the_whole_value() -> None:
    """A small far island: a tenth of one surface, a fortieth of both together."""
    reference = box((60, 40, 3), (2, 32), (2, 32), (1, 2))
    prediction = reference.copy()
    prediction[50:58, 2:12, 1] = 1
    found = {name: only(prediction, reference, definition=name) for name in metrics.DEFINITIONS}
    assert found["monai"]["hd95_mm"] > 10 > found["monai"]["asd_mm"]
    assert found["medpy"]["hd95_mm"] == 0
    for name in found:  # pains/medical.md row 22
        assert name in metrics.definitions(name, 1.0)["hd95_mm"]


def test_distances_are_millimetres_along_each_axis() -> None:  # pains/medical.md row 21
    for axis, spacing in enumerate(SPACING):
        reference = box((20, 20, 20), (4, 8), (4, 8), (4, 8))
        moved = np.roll(reference, 9, axis)
        assert only(moved, reference)["hd95_mm"] == pytest.approx(9 * spacing, rel=0.4)
        unit = only(moved, reference, spacing=(1, 1, 1))["hd95_mm"]
        assert only(moved, reference, spacing=(3, 3, 3))["hd95_mm"] == pytest.approx(3 * unit)


def test_spacing_is_required() -> None:  # pains/medical.md row 21
    with pytest.raises(TypeError, match="spacing"):
        metrics.case_metrics(blob(1), blob(2), classes={1: "lesion"})  # type: ignore[call-arg]


def test_volumes_are_millilitres() -> None:
    row = only(box((10, 10, 10), (0, 10), (0, 10), (0, 4)), np.ones((10, 10, 10), np.int16))
    assert row["predicted_ml"] == pytest.approx(400 * 0.75 / 1000)
    assert row["reference_ml"] == pytest.approx(1000 * 0.75 / 1000)
    assert row["volume_error"] == pytest.approx(2 * 600 / 1400)


def test_lesions_are_found_missed_and_invented_one_by_one() -> None:
    reference, prediction = np.zeros((2, 20, 20, 5), np.int16)
    reference[2:4, 2:4], reference[2:4, 8:10], reference[15, 15] = 1, 1, 1
    prediction[3:5, 3:9] = 1  # over two lesions
    prediction[10, 1, 1] = prediction[11, 2, 2] = 1  # one: they touch at a corner
    assert only(prediction, reference)["lesion_f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_one_rule_for_empty_masks() -> None:  # pains/medical.md rows 18, 19
    some, none = blob(1), np.zeros((24, 20, 16), np.int16)
    diagonal = math.hypot(24 * 0.5, 20 * 0.5, 16 * 3)
    absent = only(none, none)
    assert absent["state"] == "absent"
    assert all(absent[figure] is None for figure in metrics.FIGURES)
    for state, row in (("missed", only(none, some)), ("invented", only(some, none))):
        assert row["state"] == state
        assert [row[figure] for figure in metrics.FIGURES] == [0, 0, diagonal, diagonal, 0, 0, 2]


@pytest.mark.parametrize("definition", metrics.DEFINITIONS)
def test_deleting_a_prediction_makes_every_mean_worse(definition: str) -> None:
    """As does inventing one where there was none."""  # pains/medical.md row 19
    reference = np.where(blob(1), blob(2) + 1, 0).astype(np.int16)
    prediction = np.roll(reference, 1, 0)
    classes = {1: "a", 2: "b", 3: "c"}

    def means(*cases: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
        rows = [
            metrics.case_metrics(p, r, spacing=SPACING, classes=classes, definition=definition)
            for p, r in cases
        ]
        return metrics.summarise(rows, [str(i) for i in range(len(rows))])

    base = means((prediction, reference), (prediction, reference))
    deleted = means((prediction, reference), (np.where(prediction == 2, 0, prediction), reference))
    invented = prediction.copy()
    invented[0, 0, 0] = 3
    more = means((prediction, reference), (invented, reference))
    for figure in metrics.FIGURES:
        sign = 1 if figure in ("hd95_mm", "asd_mm", "volume_error") else -1
        assert sign * deleted[figure]["value"] > sign * base[figure]["value"], figure
        assert sign * more[figure]["value"] > sign * base[figure]["value"], figure
    assert base["dice"] | {"used": 4, "absent": 2, "missed": 0, "invented": 0} == base["dice"]
    assert deleted["dice"]["missed"] == 1
    assert more["dice"] | {"used": 5, "absent": 1, "invented": 1} == more["dice"]


def test_ignored_voxels_count_nowhere() -> None:
    reference, prediction = blob(1), blob(2)
    expected = only(np.where(blob(5), 0, prediction), np.where(blob(5), 0, reference))
    reference[blob(5) > 0] = -1
    assert only(prediction, reference) == expected
    assert only(prediction.astype(np.uint8), reference) == expected


def test_other_classes_do_not_disturb_a_class() -> None:
    prediction, reference = blob(1) + 2 * blob(3), blob(2) + 2 * blob(4)
    rows = metrics.case_metrics(
        prediction, reference, spacing=SPACING, classes={1: "a", 2: "b", 3: "c"}
    )
    for number, row in enumerate(rows, 1):
        alone = only((prediction == number).astype(int), (reference == number).astype(int))
        assert row == alone | {"class": "abc"[number - 1]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"spacing": (1.0, 1.0)}, "3 positive lengths"),
        ({"spacing": (1.0, 0.0, 1.0)}, "3 positive lengths"),
        ({"spacing": (1.0, math.nan, 1.0)}, "3 positive lengths"),
        ({"tolerance_mm": -1.0}, "tolerance"),
        ({"definition": "monia"}, "did you mean 'monai'"),
        ({"figures": ["dise"]}, "did you mean 'dice'"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        only(blob(1), blob(2), **change)


def test_figures_can_be_chosen() -> None:
    every = only(blob(1), blob(2))
    for figure in metrics.FIGURES:
        row = only(blob(1), blob(2), figures=[figure])
        assert row == {k: v for k, v in every.items() if k not in metrics.FIGURES or k == figure}


def test_masks_of_other_shape_or_kind_are_refused() -> None:
    with pytest.raises(DataError, match=r"\(24, 20, 16\).*\(24, 20, 15\)"):
        only(blob(1), blob(2)[..., :15])
    with pytest.raises(DataError, match="float64"):
        only(blob(1).astype(float), blob(2))


@pytest.mark.slow
def test_512_cubed_takes_seconds() -> None:  # pains/medical.md row 23
    import time

    reference = ball((512, 512, 512), (250, 260, 250), 90)
    prediction = np.roll(reference, 3, 1)
    start = time.thread_time()  # others on the machine do not count
    row = only(prediction, reference, spacing=(1, 1, 1))
    assert time.thread_time() - start < 5
    assert row["hd95_mm"] == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("spacing", [(1.5, 0.8, 0.8), (1, 1, 1), (0.5, 0.5, 3.0), (3.0, 0.5, 0.5)])
@pytest.mark.parametrize("far", [False, True])
def test_nearest_distances_are_exact(spacing: tuple[float, ...], far: bool) -> None:
    """Against all pairs: near ones from the lines around, far ones beyond their reach."""
    from renshu_tasks.segmentation.metrics.surfaces import nearest

    rng = np.random.default_rng(0)
    points, others = rng.integers(0, 40, (200, 3)), rng.integers(0, 40, (300, 3))
    others[:, 0] += 60 * far
    apart = (points[:, None] - others[None]) * np.array(spacing)
    assert nearest(points, others, spacing) == pytest.approx(
        np.sqrt((apart**2).sum(-1)).min(1), abs=1e-12
    )
