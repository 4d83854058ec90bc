"""No patient tag of a DICOM file reaches an id, a mask, a table, a report or a message."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="needs the medical extra")
pytest.importorskip("nibabel", reason="needs the medical extra")

import nibabel
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from renshu_tasks.segmentation import privacy

SECRETS = {
    "PatientName": "Mustermann^Xanthippe",
    "PatientID": "PID-7734-22",
    "PatientBirthDate": "19640812",
    "AccessionNumber": "ACC998877",
    "InstitutionName": "Klinikum Beispielstadt",
    "ReferringPhysicianName": "Hausarzt^Bodo",
    "StudyDescription": "Xanthippe Mustermann control",
}
WORDS = [
    "Mustermann",
    "Xanthippe",
    "PID-7734",
    "19640812",
    "ACC998877",
    "Beispielstadt",
    "Hausarzt",
]


@pytest.fixture(autouse=True)
def _salt(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A salt of the test's own: nothing is written into the user's home."""
    monkeypatch.setenv("RENSHU_SALT", "a")
    privacy._salt.cache_clear()
    yield
    privacy._salt.cache_clear()


def series(folder: Path, voxels: np.ndarray, suffix: str = "") -> Path:
    """int16 [columns, rows, slices] as a series at 1.5 x 1.5 x 2 mm, its tags full of secrets."""
    folder.mkdir(parents=True)
    uid = generate_uid()
    for number in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        for tag, value in SECRETS.items():
            setattr(file, tag, value + suffix if tag == "PatientID" else value)
        file.SOPClassUID, file.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        file.SeriesInstanceUID, file.Modality = uid, "MR"
        file.Rows, file.Columns = voxels.shape[1], voxels.shape[0]
        file.PixelSpacing, file.ImageOrientationPatient = [1.5, 1.5], [1, 0, 0, 0, 1, 0]
        file.ImagePositionPatient = [0, 0, 2.0 * number]
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 1
        file.PixelData = np.ascontiguousarray(voxels[:, :, number].T).astype("<i2").tobytes()
        file.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)
    return folder


def test_a_name_that_tells_the_patient_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = series(tmp_path / "s", np.zeros((4, 4, 2), np.int16))
    for told in ("xanthippe_2021", "PID-7734-22_T1", "scan 19640812", "Mustermann"):
        found = privacy.safe_id(told, folder)
        assert found == privacy.safe_id(told, folder) != privacy.safe_id(told + "2", folder)
        assert found.startswith("case-")
        assert not [word for word in WORDS if word.lower() in found.lower()]
    assert privacy.safe_id("sub-01_T1", folder) == "sub-01_T1"
    assert privacy.safe_id("Mustermann", None) == "Mustermann"
    before = privacy.hashed("xanthippe")
    monkeypatch.setenv("RENSHU_SALT", "b")
    privacy._salt.cache_clear()
    assert privacy.hashed("xanthippe") != before


def test_short_names_and_dates_in_another_spelling_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for tag, value in (("PatientName", "Li^Wei"), ("PatientID", "123"), ("StudyID", "1")):
        monkeypatch.setitem(SECRETS, tag, value)
    folder = series(tmp_path / "s", np.zeros((4, 4, 2), np.int16))
    for told in ("li_wei", "scan.Wei", "Wei-Li", "liwei", "T1 123", "1964-08-12", "1964_08_12/ct"):
        assert privacy.safe_id(told, folder).startswith("case-"), told
    for neutral in ("liver_1", "weight", "sub-01_T1", "scan1234"):
        assert privacy.safe_id(neutral, folder) == neutral


def test_the_salt_is_made_once_for_the_user_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RENSHU_SALT")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    privacy._salt.cache_clear()
    first = privacy.hashed("a")
    privacy._salt.cache_clear()
    assert privacy.hashed("a") == first
    assert (tmp_path / "renshu" / "salt").stat().st_mode & 0o077 == 0


def test_no_tag_of_a_patient_reaches_any_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Train, evaluate, predict and report on tagged series, half of them in folders of the
    patient's name, then search whatever was written."""
    pytest.importorskip("monai", reason="needs the medical extra")
    pytest.importorskip("plotly", reason="needs the report extra")
    from renshu.cli.main import main

    rng = np.random.default_rng(0)
    for number in range(8):
        mask = np.zeros((40, 36, 32), np.uint8)
        mask[6 + number % 3 : 26, 9:25, 8:22] = 1
        voxels = (rng.normal(100, 20, mask.shape) + 200 * mask).astype(np.int16)
        name = f"case{number}" if number % 2 else f"Mustermann_{number}"
        series(tmp_path / "data" / "images" / name, voxels, f"-{number}")
        (tmp_path / "data" / "labels").mkdir(exist_ok=True)
        affine = np.diag([-1.5, -1.5, 2.0, 1.0])
        file = tmp_path / "data" / "labels" / f"{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(mask, affine), file)
    options = ["--trainer.max_steps", "2", "--trainer.run", "tagged", "--model.width", "4"]
    paths = ["--data.path", str(tmp_path / "data"), "--data.patches", "4", "--data.batch_size", "2"]
    assert main(["train", "segmentation", *paths, *options]) == 0, capfd.readouterr()
    run = tmp_path / "runs" / "tagged"
    two = [str(tmp_path / "data" / "images" / name) for name in ("case1", "Mustermann_0")]
    assert main(["predict", str(run), *two, "--out", str(tmp_path / "table.csv")]) == 0
    said = "".join(capfd.readouterr())
    shutil.rmtree(tmp_path / "data")
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} >= {".html", ".md", ".csv", ".gz", ".json"}
    for word in WORDS:
        assert word.lower() not in said.lower()
        for file in files:
            content = gzip.open(file).read() if file.suffix == ".gz" else file.read_bytes()
            assert word.lower().encode() not in content.lower(), file
            assert word.lower() not in str(file.relative_to(tmp_path)).lower()
    for name in ("report.html", "model_card.md"):
        assert "not a medical device" in (run / name).read_text("utf-8")
    assert json.loads((run / "evaluation" / "test" / "metrics.json").read_text())["cases"] > 0
