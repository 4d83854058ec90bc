"""CSV manifests: what is read, and that every fault is told with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from renshu.errors import DataError
from renshu_tasks.image_classification.data import ImageData

Write = Callable[..., Path]


@pytest.fixture
def rows(write_digits: Write) -> list[str]:
    """`path,label` of 120 digits below pictures/."""
    folder = write_digits(Path("pictures"), 0, 120)
    return [f"pictures/{f.relative_to(folder)},{f.parent.name}" for f in _sorted(folder)]


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def _csv(lines: list[str], head: str = "path,label", encoding: str = "utf-8") -> str:
    Path("table.csv").write_text("\n".join([head, *lines]) + "\n", encoding=encoding)
    return "table.csv"


def test_rows_are_read_in_order(rows: list[str]):
    data = ImageData.from_csv(_csv(rows))
    assert data.records.ids == [row.split(",")[0] for row in rows]
    assert [label[0] for label in data.records.labels] == [row.split(",")[1] for row in rows]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_byte_order_marks_and_other_alphabets(
    rows: list[str], separator: str, encoding: str
):
    names = {"1": "eins; zwei", "2": '"zwölf"', "3": "三"}
    lines = []
    for row in rows:
        path, label = row.split(",")
        name = names.get(label, label).replace('"', '""')
        lines.append(f'{path}{separator}"{name}"')
    data = ImageData.from_csv(_csv(lines, f"path{separator}label", encoding))
    assert {"eins; zwei", '"zwölf"', "三"} <= set(data.classes)


def test_windows_line_ends_and_empty_lines(rows: list[str]):
    Path("table.csv").write_bytes("\r\n".join(["path,label", *rows, "", ""]).encode())
    assert len(ImageData.from_csv("table.csv").records) == 120


def test_parts_and_groups_come_from_columns(rows: list[str]):
    lines = [
        f"{row},{'test' if k % 4 == 0 else 'train'},{'t' if k % 4 == 0 else 'p'}{k // 8}"
        for k, row in enumerate(rows)
    ]
    data = ImageData.from_csv(_csv(lines, "path,label,split,group"))
    assert len(data.parts["test"]) == 30
    assert data.records.groups is not None
    where = [{data.records.groups[row] for row in part} for part in data.parts.values()]
    assert not (where[0] & where[1] or where[1] & where[2] or where[0] & where[2])


def test_names_of_columns_can_be_given(rows: list[str]):
    lines = [f"{row},x" for row in rows]
    table = _csv(lines, "file,digit,note")
    data = ImageData.from_csv(table, image_column="file", label_column="digit")
    assert len(data.classes) == 10


def test_paths_are_relative_to_the_root(rows: list[str]):
    lines = [row.removeprefix("pictures/") for row in rows]
    assert len(ImageData.from_csv(_csv(lines), root="pictures").records) == 120


def test_a_missing_column_is_named_with_those_there_are(rows: list[str]):
    with pytest.raises(DataError, match=r"'label' is missing(.|\n)*line 1(.|\n)*path, labels"):
        ImageData.from_csv(_csv(rows, "path,labels"))


def test_an_unknown_label_is_named_with_its_line(rows: list[str]):
    rows[4] = rows[4].split(",")[0] + ",zero"
    with pytest.raises(DataError, match=r"'zero' is unknown(.|\n)*table\.csv, line 6"):
        ImageData.from_csv(_csv(rows), classes=[str(k) for k in range(10)])


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "pictures/../../secret.png",
        "..\\secret.png",
        "/etc/hostname",
        "file:///etc/hostname",
        "https://example.org/x.png",
        "C:\\x.png",
        "\\\\server\\share\\x.png",
        "pictures/link.png",
        "../run-evil/x.png",
        "x" * 5000,
        "a\0b.png",
        "",
    ],
)
def test_paths_outside_the_folder_are_refused_with_their_line(
    rows: list[str], path: str, write_digits: Write
):
    # pains/security.md rows 13 and 15
    Path("run").mkdir()
    Path("secret.png").write_bytes(next(Path("pictures/0").iterdir()).read_bytes())
    Path("run-evil").mkdir()
    Path("run-evil/x.png").write_bytes(Path("secret.png").read_bytes())
    Path("pictures").rename("run/pictures")
    Path("run/pictures/link.png").symlink_to(Path("secret.png").absolute())
    rows[2] = f"{path},3"
    Path("run/table.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match=r"run/table\.csv, line 4"):
        ImageData.from_csv("run/table.csv")


def test_paths_outside_can_be_allowed(rows: list[str]):
    file = Path(rows[2].split(",")[0])
    Path("elsewhere.png").write_bytes(file.read_bytes())
    file.unlink()
    Path("run").mkdir()
    Path("pictures").rename("run/pictures")
    rows[2] = "../elsewhere.png," + rows[2].split(",")[1]
    Path("run/table.csv").write_text("\n".join(["path,label", *rows]))
    assert len(ImageData.from_csv("run/table.csv", allow_outside=True).records) == 120
    rows[2] = "file:///etc/hostname,3"
    Path("run/table.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DataError, match="line 4"):
        ImageData.from_csv("run/table.csv", allow_outside=True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pictures/none.png,3", "is not there"),
        ("pictures/0/0000.png", "1 fields"),
        ("pictures/0/0000.png,0,extra", "3 fields"),
        ("pictures/0,3", "is not there"),
        ('"pictures/0/0000.png,3', "cannot be read"),
    ],
)
def test_a_bad_row_is_named_by_its_line(rows: list[str], line: str, message: str):
    with pytest.raises(DataError, match=rf"{message}(.|\n)*table\.csv, line 122"):
        ImageData.from_csv(_csv([*rows, line]))


def test_an_empty_label_is_refused(rows: list[str]):
    rows[7] = rows[7].split(",")[0] + ","
    with pytest.raises(DataError, match=r"label is empty(.|\n)*line 9"):
        ImageData.from_csv(_csv(rows))


def test_a_file_listed_twice_is_refused_with_both_lines(rows: list[str]):
    with pytest.raises(DataError, match=r"listed twice(.|\n)*line 122(.|\n)*see line 2"):
        ImageData.from_csv(_csv([*rows, rows[0]]))


def test_an_unknown_part_is_refused(rows: list[str]):
    with pytest.raises(DataError, match=r"'tset' is not a part(.|\n)*line 2"):
        ImageData.from_csv(_csv([f"{row},tset" for row in rows], "path,label,split"))


def test_another_encoding_is_refused_with_advice(rows: list[str]):
    with pytest.raises(DataError, match=r"not UTF-8(.|\n)*iconv"):
        ImageData.from_csv(_csv([f"{row}ä" for row in rows], encoding="latin-1"))


@pytest.mark.parametrize("text", ["", "\n\n", "path,label\n"])
def test_an_empty_manifest_is_refused(text: str):
    Path("table.csv").write_text(text)
    with pytest.raises(DataError, match=r"table\.csv"):
        ImageData.from_csv("table.csv")


def test_several_labels_a_picture(rows: list[str]):
    lines = []
    for row in rows:
        path, label = row.split(",")
        number = int(label)
        names = ["even"] * (number % 2 == 0) + ["large"] * (number > 4)
        lines.append(f"{path}, {' | '.join(names)} ")
    data = ImageData.from_csv(_csv(lines), multi_label=True)
    assert data.classes == ["even", "large"]
    for sample in data.dataset("train"):
        number = int(rows[int(sample["index"])].split(",")[1])
        assert sample["label"].tolist() == [float(number % 2 == 0), float(number > 4)]
    with pytest.raises(DataError, match=r"label is empty"):
        ImageData.from_csv(_csv(lines))
