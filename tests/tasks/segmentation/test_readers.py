"""Files that cannot be used are named, with what is wrong; what can be used is read exactly."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from renshu.errors import DataError
from renshu_tasks.segmentation.loading import load_case
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.readers import read_scan
from renshu_tasks.segmentation.records import Record

Write = Callable[..., Path]


def load(image: Path, mask: Path | None = None, **options: object):
    return load_case(Record("a", (image,), mask), DataOptions(**options))


def test_a_scaled_nifti_is_read_as_its_header_says(tmp_path: Path) -> None:
    affine = np.array([[0, -0.5, 0, 10], [2, 0, 0, -3], [0, 0, 1.5, 7], [0, 0, 0, 1.0]])
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), affine)
    image.header.set_slope_inter(2.0, -5.0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    case = load(tmp_path / "a.nii.gz")
    reread = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(case.image[0], reread.get_fdata())
    np.testing.assert_array_equal(case.affine, reread.affine)
    assert case.spacing == (2.0, 0.5, 1.5)


def test_a_mask_of_another_shape_or_place_is_refused_with_both_affines(
    tmp_path: Path, write_nifti: Write
) -> None:
    # pains/medical.md row 6
    image = write_nifti(tmp_path / "i.nii.gz", np.random.rand(4, 5, 6).astype(np.float32))
    moved = np.eye(4)
    moved[0, 3] = 2.0
    mask = write_nifti(tmp_path / "m.nii.gz", np.ones((4, 5, 6), np.uint8), moved)
    with pytest.raises(DataError, match="2 mm") as raised:
        load(image, mask)
    assert "never copy the header" in str(raised.value)  # pains/medical.md row 7
    small = write_nifti(tmp_path / "s.nii.gz", np.ones((4, 5, 5), np.uint8))
    with pytest.raises(DataError, match=r"\(4, 5, 5\)"):
        load(image, small)


def test_a_rounding_error_in_the_mask_affine_is_no_difference(
    tmp_path: Path, write_nifti: Write
) -> None:
    # pains/medical.md row 6
    image = write_nifti(tmp_path / "i.nii.gz", np.random.rand(4, 5, 6).astype(np.float32))
    near = np.eye(4) + 1e-7
    near[3] = (0, 0, 0, 1)
    mask = write_nifti(tmp_path / "m.nii.gz", np.ones((4, 5, 6), np.uint8), near)
    assert load(image, mask).mask.sum() == 120


def test_a_moved_mask_is_resampled_in_world_space_when_asked(
    tmp_path: Path, write_nifti: Write
) -> None:
    # pains/medical.md rows 7 and 11
    image = write_nifti(tmp_path / "i.nii.gz", np.random.rand(8, 8, 8).astype(np.float32))
    moved = np.eye(4)
    moved[:3, 3] = (2, 0, 1)
    voxels = np.zeros((8, 8, 8), np.uint8)
    voxels[1:3, 2:5, 3:5] = 1
    mask = load(image, write_nifti(tmp_path / "m.nii.gz", voxels, moved), mismatch="resample").mask
    expected = np.zeros((8, 8, 8), np.int16)
    expected[3:5, 2:5, 4:6] = 1
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_voxels_that_are_no_numbers_are_counted(
    tmp_path: Path, write_nifti: Write, value: float
) -> None:
    voxels = np.ones((4, 4, 4), np.float32)
    voxels[0, 0, :2] = value
    with pytest.raises(DataError, match="2 voxels of the image are NaN or infinite"):
        load(write_nifti(tmp_path / "i.nii.gz", voxels))


def test_four_axes_are_refused_and_a_single_fourth_is_dropped(
    tmp_path: Path, write_nifti: Write
) -> None:
    with pytest.raises(DataError, match="4 axes"):
        load(write_nifti(tmp_path / "i.nii.gz", np.zeros((4, 4, 4, 2), np.float32)))
    one = load(write_nifti(tmp_path / "j.nii.gz", np.random.rand(4, 4, 4, 1)))
    assert one.image.shape == (1, 4, 4, 4)


def test_missing_spacing_is_refused(tmp_path: Path, write_nifti: Write) -> None:
    # pains/medical.md row 21
    file = write_nifti(tmp_path / "i.nii", np.zeros((4, 4, 4), np.float32))
    raw = bytearray(file.read_bytes())
    raw[252:256] = bytes(4)  # qform_code and sform_code
    file.write_bytes(raw)
    with pytest.raises(DataError, match="does not say where the scan lies"):
        load(file)
    flat = write_nifti(tmp_path / "f.nii", np.zeros((4, 4, 4), np.float32))
    raw = bytearray(flat.read_bytes())
    raw[312:328] = bytes(16)  # srow_z
    flat.write_bytes(raw)
    with pytest.raises(DataError, match="no spacing"):
        load(flat)


def test_disagreeing_forms_are_reported_and_the_sform_counts(tmp_path: Path) -> None:
    # pains/medical.md row 12
    image = nibabel.Nifti1Image(np.random.rand(4, 4, 4).astype(np.float32), np.eye(4))
    image.set_sform(np.diag([2.0, 2, 2, 1]), code=1)
    image.set_qform(np.eye(4), code=1)
    nibabel.save(image, tmp_path / "i.nii.gz")
    found = read_scan(tmp_path / "i.nii.gz", max_voxels=1000)
    assert found.affine[0, 0] == 2
    assert "5.2 mm apart" in found.notes[0]


def test_sheared_axes_are_refused(tmp_path: Path, write_nifti: Write) -> None:
    # pains/medical.md row 39: a tilted gantry
    affine = np.eye(4)
    affine[1, 2] = 0.2
    with pytest.raises(DataError, match="not perpendicular"):
        load(write_nifti(tmp_path / "i.nii.gz", np.ones((4, 4, 4), np.float32), affine))


def test_truncated_and_lying_files_are_named(tmp_path: Path, write_nifti: Write) -> None:
    whole = write_nifti(tmp_path / "a.nii.gz", np.random.rand(20, 20, 20)).read_bytes()
    torn = tmp_path / "torn.nii.gz"
    torn.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="cannot be read") as raised:
        load(torn)
    assert "torn.nii.gz" in str(raised.value)
    promise = bytearray(gzip.decompress(whole))
    promise[42:44] = (200).to_bytes(2, "little")
    lying = tmp_path / "lying.nii.gz"
    lying.write_bytes(gzip.compress(bytes(promise)))
    with pytest.raises(DataError, match="cannot be read"):
        load(lying)
    promise[42:48] = (30000).to_bytes(2, "little") * 3
    lying.write_bytes(gzip.compress(bytes(promise)))
    with pytest.raises(DataError, match="voxels"):  # before memory for it is asked
        load(lying)


def test_a_case_of_one_voxel_is_refused(tmp_path: Path, write_nifti: Write) -> None:
    with pytest.raises(DataError, match="1 voxels"):
        load(write_nifti(tmp_path / "i.nii.gz", np.ones((1, 1, 1), np.float32)))


def test_pictures_need_the_size_of_a_pixel(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 8, 3), 7, np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="how large a pixel is"):
        load(tmp_path / "a.png")
    case = load(tmp_path / "a.png", picture_spacing=[0.5, 0.25])
    assert case.image.shape == (3, 6, 8)
    assert case.spacing == (0.5, 0.25)
    Image.fromarray(np.full((6, 8), 700, np.uint16)).save(tmp_path / "b.tif")
    assert load(tmp_path / "b.tif", picture_spacing=[1, 1]).image.max() == 700


def test_a_mask_in_colour_is_refused(tmp_path: Path) -> None:
    for name in ("a", "m"):
        Image.fromarray(np.full((6, 8, 3), 1, np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match="colour"):
        load(tmp_path / "a.png", tmp_path / "m.png", picture_spacing=[1, 1])


def test_channels_on_different_grids_are_refused(tmp_path: Path, write_nifti: Write) -> None:
    first = write_nifti(tmp_path / "a.nii.gz", np.random.rand(4, 4, 4))
    second = write_nifti(tmp_path / "b.nii.gz", np.random.rand(4, 4, 4), np.diag([1, 1, 2, 1]))
    with pytest.raises(DataError, match="channels lie on different grids"):
        load_case(Record("a", (first, second)), DataOptions())
