"""Local Hugging Face data sets: saved ones, tables, and in memory; nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from renshu.errors import DataError
from renshu_tasks.image_classification.data import ImageData

datasets = pytest.importorskip("datasets")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.socket.connect", lambda *a: pytest.fail("a connection was opened"))


def _table(digits: tuple, first: int, last: int, **more: list):
    names = [f"digit {k}" for k in range(10)]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    features |= {name: datasets.Value("string") for name in more}
    content = {
        "image": [Image.fromarray(image[0]) for image in digits[0][first:last]],
        "label": [int(label) for label in digits[1][first:last]],
    }
    return datasets.Dataset.from_dict(content | more, features=datasets.Features(features))


def _check(data: ImageData, digits: tuple, part: str, offset: int) -> None:
    for sample in data.dataset(part):
        row = int(data.records.ids[int(sample["index"])].split("/")[-1]) + offset
        assert np.array_equal(sample["image"].numpy(), digits[0][row])
        assert int(sample["label"]) == int(digits[1][row])


def test_a_saved_data_set_is_read(digits: tuple):
    _table(digits, 0, 300).save_to_disk("saved")
    data = ImageData.from_hugging_face("saved")
    assert data.classes == [f"digit {k}" for k in range(10)]
    _check(data, digits, "test", 0)


def test_parts_of_a_saved_data_set_are_kept(digits: tuple):
    parts = {"train": _table(digits, 0, 300), "test": _table(digits, 300, 400)}
    datasets.DatasetDict(parts).save_to_disk("saved")
    data = ImageData.from_hugging_face("saved")
    assert len(data.parts["test"]) == 100 and len(data.parts["val"]) == 45
    _check(data, digits, "test", 300)
    _check(data, digits, "val", 0)


def test_parquet_and_arrow_tables_are_read_with_the_part_in_their_name(digits: tuple):
    Path("tables/data").mkdir(parents=True)
    _table(digits, 0, 150).to_parquet("tables/data/train-00000-of-00002.parquet")
    _table(digits, 150, 300).to_parquet("tables/data/train-00001-of-00002.parquet")
    _table(digits, 300, 400).to_parquet("tables/data/test-00000-of-00001.parquet")
    data = ImageData.from_hugging_face("tables")
    assert len(data.records) == 400 and len(data.parts["test"]) == 100
    _check(data, digits, "train", 0)
    _check(data, digits, "test", 300)


def test_a_data_set_in_memory_with_groups(digits: tuple):
    groups = [f"writer {row // 10}" for row in range(300)]
    data = ImageData.from_hugging_face(_table(digits, 0, 300, group=groups))
    assert data.records.groups == groups
    _check(data, digits, "val", 0)


def test_a_column_that_is_not_clear_is_asked_for(digits: tuple):
    table = _table(digits, 0, 100).add_column("second", list(range(100)))
    two = table.cast_column("second", datasets.ClassLabel(num_classes=100))
    with pytest.raises(DataError, match=r"not clear which column is label(.|\n)*label_column"):
        ImageData.from_hugging_face(two)
    assert len(ImageData.from_hugging_face(two, label_column="label").classes) == 10
    with pytest.raises(DataError, match=r"'lable' is missing(.|\n)*did you mean 'label'"):
        ImageData.from_hugging_face(two, label_column="lable")


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "link.png"])
def test_a_table_cannot_name_files_outside_its_folder(digits: tuple, path: str):
    # pains/security.md row 13
    secret = Path("secret.png").absolute()
    Image.fromarray(digits[0][0, 0]).save(secret)
    Path("saved").mkdir()
    Path("saved/link.png").symlink_to(secret)
    images = [{"path": path, "bytes": None}] * 40
    features = datasets.Features(
        {"image": {"path": datasets.Value("string"), "bytes": datasets.Value("binary")}}
    )
    table = datasets.Dataset.from_dict({"image": images}, features=features)
    table = table.cast_column("image", datasets.Image()).add_column("label", ["a", "b"] * 20)
    # to_parquet would read the files and embed them
    parquet.write_table(table.data.table, "saved/train.parquet")
    with pytest.raises(DataError, match=r"outside the data folder(.|\n)*row 0"):
        ImageData.from_hugging_face("saved")
    with pytest.raises(DataError, match=r"outside the data folder"):
        ImageData.from_hugging_face("saved", on_bad_image="skip")
    with pytest.raises(DataError, match=r"outside the data folder"):
        ImageData.from_hugging_face(table)


def test_a_broken_table_is_named(digits: tuple):
    Path("tables").mkdir()
    Path("tables/train.parquet").write_bytes(b"PAR1 broken PAR1")
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*train\.parquet"):
        ImageData.from_hugging_face("tables")
    Path("saved").mkdir()
    Path("saved/state.json").write_text("{}")
    with pytest.raises(DataError, match=r"cannot be read(.|\n)*saved"):
        ImageData.from_hugging_face("saved")
