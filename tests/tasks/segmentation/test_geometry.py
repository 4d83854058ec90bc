"""Where voxels are stays where it was: orientations, spacings, grids that disagree."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the medical extra")
pytest.importorskip("scipy", reason="needs the medical extra")

import nibabel
from scipy.spatial.transform import Rotation

from renshu.errors import DataError
from renshu_tasks.segmentation import geometry

TURNED = [
    (order, signs) for order in permutations(range(3)) for signs in product((1, -1), repeat=3)
]


def affine(
    order: tuple[int, ...] = (0, 1, 2),
    signs: tuple[int, ...] = (1, 1, 1),
    spacing: tuple[float, ...] = (0.7, 1.1, 2.5),
    oblique: float = 0.0,
) -> np.ndarray:
    """An affine of one of the 48 orientations, turned by `oblique` radians about two axes."""
    result = np.eye(4)
    result[:3, :3] = np.eye(3)[:, list(order)] * np.array(signs) * np.array(spacing)
    result[:3, :3] = Rotation.from_euler("zx", [oblique, oblique]).as_matrix() @ result[:3, :3]
    result[:3, 3] = (-90.5, 31.25, 1200.75)
    return result


def world(mask: np.ndarray, where: np.ndarray, number: int) -> np.ndarray:
    """The middle of a class, in mm."""
    place = np.argwhere(mask == number).mean(0)
    return where[:3, : mask.ndim] @ place + where[:3, 3]


def ball(radius: float, shape: tuple[int, ...]) -> np.ndarray:
    places = np.indices(shape) - np.reshape([n / 2 + 0.2 for n in shape], (-1, 1, 1, 1))
    return ((places**2).sum(0) <= radius**2).astype(np.int16)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("oblique", [0.0, 0.3])
def test_all_48_orientations_come_back(oblique: float) -> None:  # pains/medical.md row 8
    mask = np.random.default_rng(0).integers(-1, 5, (5, 6, 7)).astype(np.int16)
    for order, signs in TURNED:
        own = affine(order, signs, oblique=oblique)
        shape, target = geometry.canonical_grid(mask.shape, own)
        assert nibabel.aff2axcodes(target) == ("R", "A", "S")
        turned = geometry.resample_mask(mask, own, shape, target)
        assert np.array_equal(np.sort(turned, None), np.sort(mask, None))
        assert world(turned, target, 3) == pytest.approx(world(mask, own, 3), abs=1e-9)
        assert np.array_equal(geometry.resample_mask(turned, target, mask.shape, own), mask)


def test_flat_pictures_are_turned_as_well() -> None:
    picture = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    own = affine((1, 0, 2), (-1, 1, 1))
    shape, target = geometry.canonical_grid((3, 4), own)
    turned = geometry.resample_image(picture, own, shape, target)
    assert shape == (4, 3)
    assert np.array_equal(turned[0], picture[0, ::-1].T) or np.array_equal(
        turned[0], picture[0].T[:, ::-1]
    )
    assert np.array_equal(geometry.resample_image(turned, target, (3, 4), own), picture)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.05, 1.65, 3.75), (0.3, 4.0, 2.5)])
def test_another_spacing_keeps_the_field_of_view(spacing: tuple[float, ...]) -> None:
    own, shape = affine((2, 0, 1), (-1, 1, -1), oblique=0.2), (20, 31, 17)
    size, target = geometry.spaced_grid(shape, own, spacing)
    for end in (-0.5, None):
        edge = np.array(shape) - 0.5 if end is None else np.full(3, end)
        new = np.array(size) - 0.5 if end is None else np.full(3, end)
        old_place = own[:3, :3] @ edge + own[:3, 3]
        assert target[:3, :3] @ new + target[:3, 3] == pytest.approx(old_place)
    assert geometry.spaced_grid(shape, own, geometry.voxel_spacing(own))[0] == shape


@pytest.mark.parametrize("oblique", [0.0, 0.4])
def test_landmarks_keep_their_place(oblique: float) -> None:  # pains/medical.md row 9
    mask = np.zeros((40, 36, 30), np.int16)
    mask[5:13, 20:30, 4:10], mask[25:35, 3:12, 20:27] = 1, 7
    own = affine(spacing=(1, 1, 1.5), oblique=oblique)
    size, target = geometry.spaced_grid((44, 44, 44), affine((1, 2, 0), (-1, 1, -1)), (1, 1, 1))
    target[:3, 3] = own[:3, 3] + own[:3, :3] @ [20, 18, 15]
    target[:3, 3] -= target[:3, :3] @ (np.array(size) / 2)
    moved = geometry.resample_mask(mask, own, size, target)
    assert set(np.unique(moved)) == {0, 1, 7}
    for number in (1, 7):
        apart = world(moved, target, number) - world(mask, own, number)
        assert np.abs(apart).max() < 0.5  # half a voxel: masks are rounded to voxels


@pytest.mark.parametrize("radius", [20, 30])
def test_a_mask_there_and_back_at_coarser_spacing(radius: int) -> None:
    mask, own = ball(radius, (2 * radius + 9,) * 3), affine(spacing=(1, 1, 1), oblique=0.1)
    size, target = geometry.spaced_grid(mask.shape, own, (1.5, 1.5, 1.5))
    there = geometry.resample_mask(mask, own, size, target)
    assert dice(geometry.resample_mask(there, target, mask.shape, own), mask) >= 0.98


def test_a_real_mask_there_and_back_as_shares(shared_data: Path) -> None:
    """The way of a prediction: shares of the classes on the plan's grid, mixed onto the file's."""
    from renshu_tasks.segmentation import inference

    file = min((shared_data / "hippocampus" / "labels").glob("*.nii*"))
    stored = nibabel.load(file)
    mask = np.asarray(stored.dataobj).astype(np.int16) > 0
    size, target = geometry.spaced_grid(mask.shape, stored.affine, (1.5, 1.5, 1.5))
    shares = np.stack([1 - mask, mask]).astype(np.float32)
    coarse = geometry.resample_image(shares, stored.affine, size, target, order=1)
    back = inference.segment(lambda x: x, coarse, (16, 16, 16), 0.5, 2, shape=mask.shape)
    assert dice(back > 0, mask) >= 0.97


def test_classes_do_not_eat_each_other_and_ignored_voxels_stay() -> None:
    mask = np.zeros((30, 30, 30), np.int16)
    mask[5:15, 5:25, 5:25], mask[15:25, 5:25, 5:25], mask[5:25, 5:25, 20:25] = 1, 2, -1
    own = affine(spacing=(1, 1, 1))
    size, target = geometry.spaced_grid(mask.shape, own, (0.8, 1.3, 1.1))
    there = geometry.resample_mask(mask, own, size, target)
    back = geometry.resample_mask(there, target, mask.shape, own)
    for number in (-1, 1, 2):
        assert dice(back == number, mask == number) > 0.85
    inner = (slice(7, 23), slice(7, 23), slice(7, 18))
    assert (back[inner] > 0).all()  # no background in the seam


def test_slabs_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(1).integers(0, 4, (9, 8, 7)).astype(np.uint8)
    own = affine(spacing=(1, 1, 1), oblique=0.3)
    target = affine(spacing=(0.6, 0.7, 0.9))
    whole = geometry.resample_mask(mask, own, (15, 14, 9), target)
    monkeypatch.setattr(geometry, "SLAB_VOXELS", 1)
    assert np.array_equal(geometry.resample_mask(mask, own, (15, 14, 9), target), whole)


def test_beyond_the_mask_is_background() -> None:
    mask, own = np.ones((4, 4, 4), np.uint8), affine()
    shifted = own.copy()
    shifted[:3, 3] += own[:3, :3] @ [2, 0, -1]
    found = geometry.resample_mask(mask, own, (4, 4, 4), shifted)
    assert found.sum() == 2 * 4 * 3
    assert (
        geometry.resample_mask(mask, own, (4, 4, 4), shifted + 1e3 * np.eye(4)[:, [3] * 4]).sum()
        == 0
    )


def test_a_case_of_one_voxel() -> None:
    mask, own = np.array([[[3]]], np.int16), affine((2, 0, 1), (-1, 1, 1), oblique=0.1)
    shape, target = geometry.spaced_grid(*geometry.canonical_grid((1, 1, 1), own), (5, 5, 5))
    assert shape == (1, 1, 1)
    assert geometry.resample_mask(mask, own, shape, target).item() == 3
    image = geometry.resample_image(np.full((1, 1, 1, 1), 7, np.float32), own, shape, target)
    assert image.item() == 7


def test_displacement_is_that_of_the_farthest_corner() -> None:  # pains/medical.md row 6
    own = affine(spacing=(1, 1, 1))
    other = own.copy()
    other[0, 0] += 0.01
    assert geometry.largest_displacement_mm((101, 5, 5), own, other) == pytest.approx(1.0)
    other[0, 3] += 3
    assert geometry.largest_displacement_mm((101, 5, 5), own, other) == pytest.approx(4.0)
    assert geometry.largest_displacement_mm((7, 9), own, own) == 0


def test_rounding_in_a_header_is_no_mismatch() -> None:  # pains/medical.md row 6
    mask, own = np.ones((30, 30, 30), np.uint8), affine(oblique=0.2)
    noisy = own + np.random.default_rng(0).normal(0, 1e-8, (4, 4)) * (np.arange(4) < 3)[:, None]
    assert geometry.fit_mask(mask, noisy, mask.shape, own, where="a") is mask


def test_an_offset_mask_is_refused_or_moved_but_stays_in_the_world() -> None:
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[5:10, 5:10, 5:10] = 1
    own = affine(spacing=(1, 1, 1))
    shifted = own.copy()
    shifted[:3, 3] += [3, 0, 0]
    with pytest.raises(DataError) as error:  # pains/medical.md row 7
        geometry.fit_mask(mask, shifted, mask.shape, own, where="case 3")
    text = str(error.value)
    assert "3 mm apart" in text
    assert "-90.5" in text and "-87.5" in text  # both affines
    assert "never copy the header" in text
    moved = geometry.fit_mask(mask, shifted, mask.shape, own, where="case 3", resample=True)
    assert world(moved, own, 1) == pytest.approx(world(mask, shifted, 1))


def test_a_mask_of_another_shape_is_put_on_the_images_grid() -> None:  # pains/medical.md row 11
    mask, own = ball(8, (24, 24, 24)), affine(spacing=(1, 1, 1))
    size, target = geometry.spaced_grid((24, 24, 24), own, (0.75, 0.75, 0.75))
    with pytest.raises(
        DataError, match=r"image \(32, 32, 32\).*\n.*\n.*\n.*\n.*\nmask \(24, 24, 24\)"
    ):
        geometry.fit_mask(mask, own, size, target, where="a")
    assert geometry.fit_mask(mask, own, size, target, where="a", resample=True).shape == size


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4)), np.full((4, 4), np.nan), np.eye(3), np.diag([1.0, 0, 1, 1])],
)
def test_an_affine_that_places_nothing_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(DataError, match="affine"):
        geometry.check_affine(wrong, "scan.nii")
