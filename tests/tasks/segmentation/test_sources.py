"""Layouts: folders, tables, raw nnU-Net, several channels, patients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation.case import IGNORE
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.sources import find

Write = Callable[..., Path]


def test_folders_pair_images_and_masks_by_name(tmp_path: Path, write_cases: Write) -> None:
    source = find(DataOptions(path=str(write_cases(tmp_path, 3))))
    assert [record.id for record in source.records] == ["p0", "p1", "p2"]
    case = source.load(source.records[1])
    assert case.mask.max() == 2
    assert case.patient == "p1"


def test_an_image_without_its_mask_is_named_and_the_reverse(
    tmp_path: Path, write_cases: Write
) -> None:
    folder = write_cases(tmp_path, 3)
    (folder / "labels" / "p1.nii.gz").unlink()
    with pytest.raises(DataError, match="image without its mask: p1"):
        find(DataOptions(path=str(folder)))
    (folder / "images" / "p1.nii.gz").unlink()
    (folder / "images" / "p0.nii.gz").unlink()
    with pytest.raises(DataError, match="mask without its image: p0"):
        find(DataOptions(path=str(folder)))


def test_given_parts_and_channels(tmp_path: Path, write_cases: Write) -> None:
    for part in ("train", "val", "test"):
        write_cases(tmp_path / part, 2)
    source = find(DataOptions(path=str(tmp_path)))
    assert [record.part for record in source.records] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    images = tmp_path / "train" / "images"
    for number in range(2):
        shutil.copy(images / f"p{number}.nii.gz", images / f"p{number}_t2.nii.gz")
        (images / f"p{number}.nii.gz").rename(images / f"p{number}_t1.nii.gz")
    shutil.rmtree(tmp_path / "val")
    shutil.rmtree(tmp_path / "test")
    source = find(DataOptions(path=str(tmp_path / "train"), channels=["_t1", "_t2"]))
    assert source.load(source.records[0]).image.shape[0] == 2
    (images / "p0_t2.nii.gz").unlink()
    with pytest.raises(DataError, match="p0 lacks the channel _t2"):
        find(DataOptions(path=str(tmp_path / "train"), channels=["_t1", "_t2"]))


def nnunet(folder: Path, write_cases: Write, labels: dict) -> Path:
    write_cases(folder, 2)
    (folder / "images").rename(folder / "imagesTr")
    (folder / "labels").rename(folder / "labelsTr")
    for file in list((folder / "imagesTr").iterdir()):
        file.rename(file.with_name(file.name.replace(".nii", "_0000.nii")))
    meta = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(meta))
    return folder


def test_a_raw_nnunet_data_set(tmp_path: Path, write_cases: Write) -> None:
    folder = nnunet(tmp_path, write_cases, {"background": 0, "ball": 1, "ignore": 2})
    source = find(DataOptions(path=str(folder)))
    assert source.classes == ["background", "ball"]
    assert source.modality == "ct"
    case = source.load(source.records[0])
    assert set(np.unique(case.mask)) == {IGNORE, 0, 1}


def test_labels_of_a_raw_data_set_that_leave_a_gap(tmp_path: Path, write_cases: Write) -> None:
    folder = nnunet(tmp_path, write_cases, {"background": 0, "ball": 3})
    with pytest.raises(DataError, match="numbered 0, 3"):
        find(DataOptions(path=str(folder)))


def test_a_table_with_patients_parts_and_annotated_classes(
    tmp_path: Path, write_cases: Write
) -> None:
    write_cases(tmp_path, 3)
    rows = [
        "image,mask,patient,split,annotated",
        "images/p0.nii.gz,labels/p0.nii.gz,anna,train,1",
        "images/p1.nii.gz,labels/p1.nii.gz,anna,train,ball|box",
        "images/p2.nii.gz,labels/p2.nii.gz,bert,test,",
    ]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    options = DataOptions(path=str(tmp_path / "t.csv"), classes=["background", "ball", "box"])
    records = find(options).records
    assert [record.patient for record in records] == ["anna", "anna", "bert"]
    assert [record.annotated for record in records] == [(1,), (1, 2), None]
    assert records[2].part == "test"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("images/p9.nii.gz,labels/p0.nii.gz", "not there"),
        ("../x.nii.gz,labels/p0.nii.gz", "outside"),
        ("images/p0.nii.gz", "1 fields"),
    ],
)
def test_a_wrong_row_is_named_with_its_line(
    tmp_path: Path, write_cases: Write, row: str, said: str
) -> None:
    write_cases(tmp_path / "d", 1)
    (tmp_path / "d" / "t.csv").write_text(f"image,mask\n{row}\n")
    with pytest.raises(DataError, match=said) as raised:
        find(DataOptions(path=str(tmp_path / "d" / "t.csv")))
    assert "line 2" in str(raised.value)


def test_a_row_without_its_patient_is_named(tmp_path: Path, write_cases: Write) -> None:
    write_cases(tmp_path, 2)
    rows = ("image,mask,patient", *(f"images/p{n}.nii.gz,labels/p{n}.nii.gz," for n in (0, 1)))
    (tmp_path / "t.csv").write_text("\n".join(rows))
    with pytest.raises(DataError, match="patient is missing") as raised:
        find(DataOptions(path=str(tmp_path / "t.csv")))
    assert "line 2" in str(raised.value)


def test_a_missing_column_offers_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("images,mask\na,b\n")
    with pytest.raises(DataError, match="did you mean 'images'"):
        find(DataOptions(path=str(tmp_path / "t.csv")))


def test_a_patient_pattern_must_match_every_case(tmp_path: Path, write_cases: Write) -> None:
    # pains/medical.md row 36
    folder = write_cases(tmp_path, 2)
    records = find(DataOptions(path=str(folder), patient_pattern=r"^(p)\d")).records
    assert [record.patient for record in records] == ["p", "p"]
    for part in ("train", "test"):
        write_cases(tmp_path / "parted" / part, 1)
    parted = find(DataOptions(path=str(tmp_path / "parted"), patient_pattern=r"^(p\d)")).records
    assert [record.patient for record in parted] == ["p0", "p0"]  # whatever part they lie in
    with pytest.raises(ConfigError, match="finds no patient in 'p0'"):
        find(DataOptions(path=str(folder), patient_pattern=r"^(sub)"))
    with pytest.raises(ConfigError, match="no regular expression"):
        find(DataOptions(path=str(folder), patient_pattern="("))


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not there"):
        find(DataOptions(path=str(tmp_path / "none")))
    with pytest.raises(DataError, match="images and masks are not there"):
        find(DataOptions(path=str(tmp_path)))
