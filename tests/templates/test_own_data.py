"""The table "Your own data" of each README: exactly those edits, with real files, and it trains."""

from __future__ import annotations

import csv
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .helpers import find

Maker = Callable[[Path], None]


def digits() -> tuple[np.ndarray, list[str]]:
    """A hundred pictures uint8 [N, 8, 8] of each of two digits."""
    pytest.importorskip("torchvision", reason="renshu[vision] is not installed")
    from renshu_tasks.image_classification.demo import load_digits

    images, labels = load_digits()
    chosen = [row for row, name in enumerate(labels) if name in ("3", "8")][:200]
    return images[chosen, 0], [labels[row] for row in chosen]


def picture_folders(folder: Path) -> None:
    from PIL import Image

    for number, (image, label) in enumerate(zip(*digits(), strict=True)):
        file = folder / "photos" / label / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


def picture_table(folder: Path) -> None:
    picture_folders(folder)
    rows = [
        {"file": file.relative_to(folder).as_posix(), "kind": file.parent.name}
        for file in sorted((folder / "photos").rglob("*.png"))
    ]
    write_table(folder / "labels.csv", rows)


def picture_arrays(folder: Path) -> None:
    images, labels = digits()
    np.savez(folder / "pictures.npz", images=images, labels=np.array(labels))


def cells(names: dict[int, str], extra: dict[str, str]) -> list[dict[str, Any]]:
    """The 178 wines of scikit-learn, their columns a, b, c …"""
    from sklearn.datasets import load_wine

    found: Any = load_wine()
    columns = "abcdefghijklm"
    return [
        dict(zip(columns, row, strict=True)) | {"kind": names[label]} | extra
        for row, label in zip(found.data.tolist(), found.target.tolist(), strict=True)
    ]


WINES = {0: "barolo", 1: "grignolino", 2: "barbera"}


def table_of_numbers(folder: Path) -> None:
    write_table(folder / "rows.csv", cells(WINES, {}))


def table_with_names(folder: Path) -> None:
    write_table(folder / "rows.csv", cells(WINES, {"id": "wine-x"}))


def pressure(folder: Path, columns: list[str]) -> None:
    """An arterial blood pressure as sensor.csv: time, pressure, flow, and fault if asked for."""
    pytest.importorskip("numba", reason="renshu[anomaly] is not installed")
    demo = pytest.importorskip("renshu_tasks.anomaly.demo")
    series = demo.load_demo()
    rows = [
        {"time": row, "pressure": value, "flow": -value, "fault": int(label)}
        for row, (value, label) in enumerate(zip(series.values[:, 0], series.labels, strict=True))
    ]
    write_table(folder / "sensor.csv", [{name: row[name] for name in columns} for row in rows])


def brain(folder: Path) -> list[tuple[Path, Path]]:
    """Eight cubes of the embedded brain with grey and white matter: files of images and masks."""
    nibabel = pytest.importorskip("nibabel", reason="renshu[medical] is not installed")
    pytest.importorskip("nilearn", reason="renshu[demo] is not installed")
    from renshu_tasks.segmentation.demo import load_template

    image, mask, affine = load_template()
    mask = np.clip(mask - 1, 0, 2).astype(np.uint8)
    files = []
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(8):
        x, y, z = (50 + 40 * ((number >> axis) & 1) for axis in range(3))
        cube = slice(x, x + 32), slice(y, y + 32), slice(z, z + 32)
        pair = tuple(folder / name / f"case{number}.nii.gz" for name in ("images", "labels"))
        for file, voxels in zip(pair, (image, mask), strict=True):
            nibabel.save(nibabel.Nifti1Image(voxels[cube], affine), file)
        files.append(pair)
    return files


def scan_folders(folder: Path) -> None:
    brain(folder / "scans")


def scan_table(folder: Path) -> None:
    rows = [
        {"image": image.relative_to(folder), "mask": mask.relative_to(folder), "patient": f"p{n}"}
        for n, (image, mask) in enumerate(brain(folder / "scans"))
    ]
    write_table(folder / "cases.csv", rows)


def nnunet(folder: Path) -> None:
    home = folder / "Dataset004_Hippocampus"
    for name in ("imagesTr", "labelsTr"):
        (home / name).mkdir(parents=True)
    for image, mask in brain(folder / "scans"):
        stem = image.name.removesuffix(".nii.gz")
        image.rename(home / "imagesTr" / f"{stem}_0000.nii.gz")
        mask.rename(home / "labelsTr" / f"{stem}.nii.gz")
    about = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "grey": 1, "white": 2}}
    about |= {"numTraining": 8, "file_ending": ".nii.gz"}
    (home / "dataset.json").write_text(json.dumps(about), encoding="utf-8")


def tweets() -> list[tuple[str, str]]:
    """Text and label of 300 of the embedded tweets, which are sorted by their labels."""
    pytest.importorskip("transformers", reason="renshu[text] is not installed")
    demo = pytest.importorskip("renshu_tasks.text.demo")
    with demo.corpus_file().open(encoding=demo.ENCODING, newline="") as file:
        rows = list(csv.reader(file))[1::120][:300]
    unique = {" ".join(row[-1].lower().split()): (row[-1], row[0]) for row in rows}
    return list(unique.values())


def text_table(folder: Path) -> None:
    rows = [{"comment": text, "stars": label} for text, label in tweets()]
    write_table(folder / "reviews.csv", rows)


def text_lines(folder: Path) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in tweets()]
    (folder / "reviews.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def text_parts(folder: Path) -> None:
    (folder / "reviews").mkdir()
    rows = [{"text": text, "label": label} for text, label in tweets()]
    for number, part in enumerate(("train", "val", "test")):
        write_table(folder / "reviews" / f"{part}.csv", rows[number::3])


def write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        table.writerows(rows)


SENSOR = ["time", "pressure", "flow"]
DATA: dict[str, list[Maker]] = {
    "anomaly": [
        lambda folder: pressure(folder, SENSOR[:2]),
        lambda folder: pressure(folder, [*SENSOR[:2], "fault"]),
        lambda folder: pressure(folder, SENSOR),
    ],
    "blank": [table_of_numbers, table_with_names],
    "image_classification": [picture_folders, picture_table, picture_arrays],
    "segmentation": [scan_folders, scan_table, nnunet],
    "text": [text_table, text_lines, text_parts],
}
"""The real files that each row of a README's table speaks of, in the order of the rows."""

CASES = [(name, row) for name, makers in DATA.items() for row in range(len(makers))]


def edits(readme: str, row: int) -> list[str]:
    """The edits in one row of the table: what stands in its second column as code."""
    table = readme.partition("## Your own data")[2].partition("\n\n")[0].strip().split("\n")[2:]
    assert len(table) >= 2
    return re.findall(r"`([^`]+)`", table[row].split("|")[2])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), CASES)
def test_the_edits_that_the_readme_names_are_all_that_is_needed(
    name: str, row: int, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pains/templates.md row 28
    template = find(name)
    project = template.create(template.complete({"name": f"own-{name[:5]}-{row}"}), run_dir)
    DATA[name][row](project)
    readme = (project / "README.md").read_text(encoding="utf-8")
    named = edits(readme, row) if row < 2 or name != "blank" else []
    if (name, row) == ("blank", 1):  # "as above", and one line of code
        named = edits(readme, 0)
        code = project / f"own_{name[:5]}_{row}" / "data.py"
        before = "    names = [row.pop(options.target)"
        text = code.read_text(encoding="utf-8")
        assert before in text
        assert 'row.pop("id")' in edits(readme, 1)
        loop = '    for row in table:\n        row.pop("id")\n'
        code.write_text(text.replace(before, loop + before), encoding="utf-8")
    config = (project / "config.yaml").read_text(encoding="utf-8")
    changes = [edit for edit in named if re.match(r"\w+: ", edit)]
    assert 1 <= len(changes) <= 3
    for change in changes:
        key = change.partition(":")[0]
        config, found = re.subn(rf"(?m)^  {key}:.*$", lambda m, c=change: f"  {c}", config)
        assert found == 1, key
    (project / "config.yaml").write_text(config, encoding="utf-8")
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    package = f"own_{name[:5]}_{row}"
    train = importlib.import_module(f"{package}.train")
    quick = ["--trainer.fast_dev_run", "true", "--trainer.accelerator", "cpu"]
    read_config = importlib.import_module(f"{package}.config").read_config
    trainer = train.train(read_config(quick))
    assert trainer.global_step == 1


def test_a_run_that_is_stopped_has_its_configuration(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`renshu evaluate RUN --ckpt_path last` reads it."""
    template = find("blank")
    project = template.create(template.complete({"name": "stopped"}), run_dir)
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))
    train = importlib.import_module("stopped.train")

    def stop(*arguments: object) -> None:
        raise RuntimeError("stopped here")

    monkeypatch.setattr("stopped.model.Classifier.training_step", stop)
    config = importlib.import_module("stopped.config")
    flags = ["--trainer.accelerator", "cpu", "--trainer.run", "first", "--model.width", "7"]
    with pytest.raises(RuntimeError, match="stopped here"):
        train.train(config.read_config(flags))
    again = config.read_config(["--config", "runs/first/config.yaml"])
    assert again.model.width == 7
