"""DICOM series: sorted by place, scaled, whole, and one a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import JPEGLSLossless

from renshu.errors import DataError
from renshu_tasks.segmentation.dicom import modality, read_series

Shared = Callable[[str], Path]
MOST = 10**9


def series(shared: Shared, name: str = "36468-FLAIRreg-58706") -> Path:
    return shared("dicom_study") / name


def copied(source: Path, folder: Path, names: Callable[[int], str]) -> Path:
    """The slices under other names."""
    folder.mkdir()
    for number, file in enumerate(sorted(source.iterdir())):
        shutil.copy(file, folder / names(number))
    return folder


def test_slices_lie_where_their_headers_say(shared: Shared) -> None:
    # pains/medical.md row 39
    scan = read_series(series(shared), max_voxels=MOST)
    files = [pydicom.dcmread(file) for file in sorted(series(shared).iterdir())]
    assert scan.voxels.shape == (files[0].Columns, files[0].Rows, len(files))
    to_ras = np.array([-1, -1, 1])
    for file in files[::5]:
        place = np.linalg.inv(scan.affine) @ [*(np.array(file.ImagePositionPatient) * to_ras), 1]
        assert np.abs(place[:2]).max() < 0.01
        number = round(place[2])
        slope = float(file.get("RescaleSlope", 1))
        expected = file.pixel_array.T * slope + float(file.get("RescaleIntercept", 0))
        np.testing.assert_allclose(scan.voxels[:, :, number], expected)
    spacing = np.linalg.norm(scan.affine[:3, :3], axis=0)
    np.testing.assert_allclose(spacing, [0.6875, 0.6875, 6.5], atol=1e-3)
    assert modality(series(shared)) == "mr"


def test_names_and_numbers_of_slices_do_not_matter(shared: Shared, tmp_path: Path) -> None:
    # pains/medical.md row 39: shuffled file names give an identical volume
    order = np.random.default_rng(0).permutation(100)
    shuffled = copied(series(shared), tmp_path / "s", lambda number: f"{order[number]}")
    first = read_series(series(shared), max_voxels=MOST)
    second = read_series(shuffled, max_voxels=MOST)
    np.testing.assert_array_equal(first.voxels, second.voxels)
    np.testing.assert_array_equal(first.affine, second.affine)


def test_a_missing_slice_is_found_with_its_place(shared: Shared, tmp_path: Path) -> None:
    folder = copied(series(shared, "11_HCropVolume"), tmp_path / "s", lambda n: f"{n:03d}.dcm")
    slices = sorted(
        folder.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2]
    )
    slices[7].unlink()
    with pytest.raises(DataError, match="1 missing") as raised:
        read_series(folder, max_voxels=MOST)
    assert slices[6].name in str(raised.value)
    assert slices[8].name in str(raised.value)


def test_a_doubled_slice_is_found(shared: Shared, tmp_path: Path) -> None:
    folder = copied(series(shared, "11_HCropVolume"), tmp_path / "s", lambda n: f"{n:03d}.dcm")
    shutil.copy(folder / "003.dcm", folder / "again.dcm")
    with pytest.raises(DataError, match="one place"):
        read_series(folder, max_voxels=MOST)


def test_two_series_in_a_folder_are_refused(shared: Shared, tmp_path: Path) -> None:
    folder = copied(series(shared), tmp_path / "s", lambda n: f"a{n}.dcm")
    for number, file in enumerate(sorted(series(shared, "11-T1post-18670").iterdir())):
        shutil.copy(file, folder / f"b{number}.dcm")
    with pytest.raises(DataError, match="2 series: 2[12] slices"):
        read_series(folder, max_voxels=MOST)


def test_slope_and_intercept_of_each_slice_are_applied(shared: Shared, tmp_path: Path) -> None:
    folder = copied(series(shared, "11_HCropVolume"), tmp_path / "s", lambda n: f"{n:03d}.dcm")
    plain = read_series(folder, max_voxels=MOST)
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.RescaleSlope, dataset.RescaleIntercept = 2, -1024
        dataset.save_as(file)
    scaled = read_series(folder, max_voxels=MOST)
    np.testing.assert_array_equal(scaled.voxels, plain.voxels * 2 - 1024)


def test_a_syntax_without_a_decoder_is_named(shared: Shared, tmp_path: Path) -> None:
    folder = copied(series(shared, "11_HCropVolume"), tmp_path / "s", lambda n: f"{n:03d}.dcm")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
        dataset.save_as(file)
    with pytest.raises(DataError, match="JPEG-LS"):
        read_series(folder, max_voxels=MOST)


def test_a_folder_without_slices_and_a_torn_slice_are_refused(
    shared: Shared, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no DICOM slice"):
        read_series(tmp_path, max_voxels=MOST)
    (tmp_path / "a.dcm").write_bytes(b"not DICOM")
    with pytest.raises(DataError, match="slice cannot be read"):
        read_series(tmp_path, max_voxels=MOST)


def test_no_tag_of_the_patient_leaves_the_reader(shared: Shared) -> None:
    # point 10: what is kept of a series holds no name, number or date
    scan = read_series(series(shared), max_voxels=MOST)
    assert "Dumbledore" not in repr(scan.origin)
    assert scan.origin.header is None
