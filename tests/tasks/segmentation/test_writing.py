"""Masks come back in the space of their input: checked by nibabel and Pillow."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("nibabel", reason="needs the medical extra")
pytest.importorskip("scipy", reason="needs the medical extra")

import nibabel
from PIL import Image
from scipy.spatial.transform import Rotation

from renshu.errors import DataError
from renshu_tasks.segmentation import geometry
from renshu_tasks.segmentation.case import Case, Origin
from renshu_tasks.segmentation.loading import load_case
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.records import Record
from renshu_tasks.segmentation.writing import write_mask


def affine(
    order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1), oblique: float = 0.0
) -> NDArray[np.float64]:
    """An affine of one of the 48 orientations, turned by `oblique` radians about two axes."""
    result = np.eye(4)
    turn = Rotation.from_euler("zx", [oblique, oblique]).as_matrix()
    result[:3, :3] = turn @ np.eye(3)[:, list(order)] * np.array(signs) * (0.7, 1.1, 2.5)
    result[:3, 3] = (-90.5, 31.25, 1200.75)
    return result


def case(own: NDArray[np.float64], shape: tuple[int, ...] = (5, 6, 7), **origin: object) -> Case:
    return Case("a", np.zeros((1, *shape), np.float32), own, origin=Origin(**origin))


def random_mask(shape: tuple[int, ...] = (5, 6, 7), top: int = 4) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(0, top + 1, shape).astype(np.int16)


@pytest.mark.parametrize("oblique", [0.0, 0.3])
def test_identity_prediction_in_all_48_orientations(tmp_path: Path, oblique: float) -> None:
    """Stored file → canonical grid → back → written: the same voxels, the affine to 1e-3 mm."""
    turned = product(permutations(range(3)), product((1, -1), repeat=3))
    for number, (order, signs) in enumerate(turned):  # pains/medical.md row 8
        own, mask = affine(order, signs, oblique=oblique), random_mask()
        stored = tmp_path / f"{number}.nii"
        nibabel.save(nibabel.Nifti1Image(mask, own), stored)
        source = nibabel.load(stored)
        like = case(source.affine, kind="nifti", files=(stored,), header=source.header)
        shape, target = geometry.canonical_grid(like.shape, like.affine)
        seen = geometry.resample_mask(mask, like.affine, shape, target)
        back = geometry.resample_mask(seen, target, like.shape, like.affine)
        found = nibabel.load(write_mask(tmp_path / f"{number}.mask", back, like))
        assert np.array_equal(np.asarray(found.dataobj), mask)
        for form in (found.affine, found.get_sform(), found.get_qform()):
            assert geometry.largest_displacement_mm(mask.shape, form, own) < 1e-3
        assert int(found.header["sform_code"]) == int(found.header["qform_code"]) > 0


def test_disagreeing_forms_are_written_equal(tmp_path: Path) -> None:  # pains/medical.md row 12
    image = nibabel.Nifti1Image(random_mask(), affine(oblique=0.2))
    image.set_sform(affine(oblique=0.2), code=3)
    image.set_qform(affine(), code=1)
    like = case(image.get_sform(), kind="nifti", header=image.header)
    found = nibabel.load(write_mask(tmp_path / "m", random_mask(), like))
    assert np.allclose(found.get_sform(), found.get_qform(), atol=1e-4)
    assert int(found.header["sform_code"]) == int(found.header["qform_code"]) == 3


def test_a_shear_which_a_qform_cannot_say_stands_in_the_sform_alone(tmp_path: Path) -> None:
    own = affine()
    own[0, 1] = 0.4
    found = nibabel.load(write_mask(tmp_path / "m", random_mask(), case(own, kind="nifti")))
    assert geometry.largest_displacement_mm((5, 6, 7), found.affine, own) < 1e-3
    assert int(found.header["qform_code"]) == 0


@pytest.mark.parametrize(
    ("unit", "mm"), [("unknown", 1.0), ("mm", 1.0), ("meter", 1000.0), ("micron", 0.001)]
)
def test_lengths_are_read_in_millimetres_and_written_in_their_own_unit(
    tmp_path: Path, unit: str, mm: float
) -> None:
    own = affine(oblique=0.2)
    own[:3] /= mm
    image = nibabel.Nifti1Image(random_mask(), own)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "in.nii")
    read = load_case(Record("a", (tmp_path / "in.nii",)), DataOptions())
    assert read.spacing == pytest.approx((0.7, 1.1, 2.5))
    found = nibabel.load(write_mask(tmp_path / "m", random_mask(), read))
    for form in (found.get_sform(), found.get_qform()):
        np.testing.assert_allclose(form, own, rtol=1e-5, atol=1e-5 / mm)
    assert found.header.get_xyzt_units()[0] == ("mm" if unit == "unknown" else unit)


def test_a_unit_that_is_no_length_is_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(random_mask(), affine())
    image.header["xyzt_units"] = 5
    nibabel.save(image, tmp_path / "in.nii")
    with pytest.raises(DataError, match="xyzt_units is 5"):
        load_case(Record("a", (tmp_path / "in.nii",)), DataOptions())


def test_the_header_is_kept_but_for_what_may_name_a_patient(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(random_mask().astype(np.float32), affine())
    header = image.header
    header.set_xyzt_units("mm", "sec")
    header["descrip"], header["db_name"], header["intent_name"] = b"DOE JANE", b"DOE", b"Jane"
    header["cal_max"], header["slice_code"] = 400, 1
    header.set_slope_inter(2, -1024)
    header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"born 1970-01-01"))
    like = case(image.affine, kind="nifti", header=header)
    file = write_mask(tmp_path / "m", random_mask(), like)
    found = nibabel.load(file)
    assert found.header.get_xyzt_units()[0] == "mm"
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(found.dataobj), random_mask())
    assert int(found.header["slice_code"]) == 1
    assert found.header["cal_max"] == 0
    assert not found.header.extensions
    assert not [word for word in (b"DOE", b"Jane", b"1970") if word in found.header.binaryblock]
    assert header["descrip"] == b"DOE JANE"  # the input's own is as it was


def test_a_series_is_written_as_nifti_in_patient_space(tmp_path: Path) -> None:
    own = affine((2, 0, 1), (-1, -1, 1), oblique=0.1)
    file = write_mask(tmp_path / "m", random_mask(), case(own, kind="dicom", files=(tmp_path,)))
    assert file.name == "m.nii.gz"
    assert geometry.largest_displacement_mm((5, 6, 7), nibabel.load(file).affine, own) < 1e-3
    assert int(nibabel.load(file).header["sform_code"]) == 1  # scanner coordinates


def test_the_same_mask_gives_the_same_bytes(tmp_path: Path) -> None:
    like = case(affine(), kind="nifti")
    first, again = (write_mask(tmp_path / f / "m", random_mask(), like) for f in _folders(tmp_path))
    assert first.read_bytes() == again.read_bytes()


def _folders(path: Path) -> list[str]:
    for name in ("a", "b"):
        (path / name).mkdir()
    return ["a", "b"]


@pytest.mark.parametrize(
    ("suffix", "written"), [(".png", ".png"), (".tiff", ".tiff"), (".jpg", ".png")]
)
@pytest.mark.parametrize("top", [4, 300])
def test_pictures(tmp_path: Path, suffix: str, written: str, top: int) -> None:
    source = tmp_path / f"in{suffix}"
    Image.fromarray(np.zeros((8, 9), np.uint8)).save(source, dpi=(72, 72))
    mask = random_mask((8, 9), top)
    file = write_mask(
        tmp_path / "m", mask, case(np.eye(4), (8, 9), kind="picture", files=(source,))
    )
    assert file.name == f"m{written}"
    with Image.open(file) as found:
        assert np.array_equal(np.asarray(found), mask)
        assert round(float(found.info["dpi"][0])) == 72


def test_the_users_own_numbers_are_written_back(tmp_path: Path) -> None:  # pains/medical.md row 5
    mask = np.array([[0, 1], [2, 0]], np.uint8)
    like = case(np.eye(4), (2, 2), kind="picture")
    file = write_mask(tmp_path / "m", mask, like, values={0: 0, 1: 4, 2: 255})
    assert np.asarray(Image.open(file)).tolist() == [[0, 4], [255, 0]]


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    like = case(affine(), kind="nifti")
    with pytest.raises(DataError, match=r"\(5, 6, 6\)"):
        write_mask(tmp_path / "m", random_mask((5, 6, 6)), like)
    with pytest.raises(DataError, match="0 to 65535"):
        write_mask(tmp_path / "m", random_mask() - 1, like)
    far = affine()
    far[:3, 3] = 1_000_000.03
    with pytest.raises(DataError, match="affine"):
        write_mask(tmp_path / "m", random_mask(), case(far, kind="nifti"))
    assert not list(tmp_path.iterdir())
