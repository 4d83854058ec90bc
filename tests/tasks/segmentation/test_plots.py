"""The report's sections: figures, volumes that agree or not, planes that lie as they should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nibabel", reason="needs the medical extra")
pytest.importorskip("scipy", reason="needs the medical extra")
pytest.importorskip("plotly", reason="needs the report extra")

from PIL import Image
from safetensors.numpy import save_file

from renshu.errors import DataError
from renshu.report import Chart, Pictures, Section, Table, Text
from renshu_tasks.segmentation import metrics
from renshu_tasks.segmentation.plots import COLOURS, planes, sections

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def masks(seed: int, shift: int = 0) -> np.ndarray:
    """A box of class 1, one of class 2 in every other case."""
    mask = np.zeros((20, 24, 16), np.int16)
    size = 4 + seed
    mask[3 + shift : 3 + shift + size, 4 : 4 + size, 4:9] = 1
    if seed % 2:
        mask[16:19, 16:22, 4:9] = 2
    return mask


def evaluated(run: Path, overlays: bool = True) -> list[dict[str, Any]]:
    """A run folder whose test part has five cases, as evaluation leaves it."""
    folder = run / "evaluation" / "test"
    folder.mkdir(parents=True)
    tables = [
        metrics.case_metrics(
            masks(seed, shift=1) * (seed != 3),
            masks(seed),
            spacing=(2, 2, 5),
            classes={1: "kidney", 2: "tumour"},
        )
        for seed in range(5)
    ]
    rows = [
        {"case": f"c{n}", "patient": f"c{n}", "confidence": 0.9, **row}
        for n, table in enumerate(tables)
        for row in table
    ]
    bins = [{"confidence": 0.7, "accuracy": 0.6, "voxels": 10}]
    found = metrics.summarise(tables, [f"c{n}" for n in range(5)]) | {
        "definitions": metrics.definitions("monai", 1.0),
        "temperature": 1.25,
        "calibration": {"voxels": 10, "ece": 0.1, "nll": 0.5, "bins": bins},
        "coverage": [{"coverage": 1.0, "risk": 0.2, "confidence": 0.9}],
    }
    (folder / "metrics.json").write_text(json.dumps(found, allow_nan=False))
    (folder / "cases.json").write_text(json.dumps(rows, allow_nan=False))
    if overlays:
        (folder / "overlays").mkdir()
        arrays = {
            "image": np.random.default_rng(0).random((20, 24, 16), np.float32),
            "truth": masks(1),
            "predicted": masks(1, shift=1),
            "affine": np.diag([2.0, 2, 5, 1]),
        }
        save_file(arrays, folder / "overlays" / "best.safetensors")
        listed = [{"rank": "best", "file": "overlays/best.safetensors", "case": "c1", "dice": 0.8}]
        (folder / "overlays.json").write_text(json.dumps(listed))
    return rows


def named(found: list[Section], title: str) -> Section:
    return next(section for section in found if section.title == title)


def test_every_mean_says_what_it_counts(tmp_path: Path) -> None:  # pains/medical.md rows 18, 22
    evaluated(tmp_path)
    section = named(sections(tmp_path), "Structures")
    table, definitions = section.parts
    assert isinstance(table, Table)
    assert isinstance(definitions, Table)
    assert table.columns[-4:] == ["used", "absent", "missed", "invented"]
    by_name = {row[0]: row for row in table.rows}
    assert by_name["kidney"][-4:] == [5, 0, 1, 0]
    assert by_name["tumour"][-4:] == [2, 3, 1, 0]
    assert by_name["mean"][-4:] == [7, 3, 2, 0]
    assert "as monai" in dict(map(tuple, definitions.rows))["HD95 mm"]  # type: ignore[arg-type]
    assert [one.name for one in section.headlines] == ["Test Dice", "Test HD95", "Test NSD"]
    assert all(one.low is not None for one in section.headlines)


def test_every_report_and_card_says_what_it_is_for(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "run"):
        if folder != tmp_path:
            evaluated(folder)
        marked = [section for section in sections(folder) if section.card]
        said = " ".join(
            part.text for section in marked for part in section.parts if isinstance(part, Text)
        )
        assert "Research use, not a medical device." in said


def test_bland_altman_from_its_definition(tmp_path: Path) -> None:
    rows = evaluated(tmp_path)
    section = named(sections(tmp_path), "Volume agreement")
    chart, table = section.parts[:2]
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    kidney = [row for row in rows if row["class"] == "kidney"]
    apart = np.array([row["predicted_ml"] - row["reference_ml"] for row in kidney])
    deviation = np.sqrt(((apart - apart.mean()) ** 2).sum() / (len(apart) - 1))
    lower, upper = apart.mean() - 1.96 * deviation, apart.mean() + 1.96 * deviation
    assert table.rows[0] == [pytest.approx(value) for value in (apart.mean(), lower, upper)] + [5]
    assert chart.traces[0]["y"] == pytest.approx(apart.tolist())
    assert len(section.parts) == 4  # the tumour of two cases as well; absent ones are no pair


def test_overlays_are_drawn_for_the_report(tmp_path: Path) -> None:
    evaluated(tmp_path)
    pictures = named(sections(tmp_path), "Cases").parts[0]
    assert isinstance(pictures, Pictures)
    files = [file for file, _ in pictures.items[0].files]
    assert len(files) == 3
    for file in files:
        with Image.open(tmp_path / file) as drawn:
            assert drawn.mode == "RGB"
            assert max(drawn.size) == 220


def test_planes_show_the_patient_upright_with_the_right_on_the_left() -> None:
    """In every orientation of the file, with pixels as long as their millimetres."""
    image, mask = np.zeros((20, 24, 16), np.float32), np.zeros((20, 24, 16), np.int16)
    mask[15:19, 19:23, 11:15] = 1  # right, front, head of the middle (RAS)
    image[:10] = 1
    spread = np.diag([2.0, 2.0, 4.0, 1.0])
    found = dict(planes(image, mask, 0 * mask, spread))
    tint = COLOURS[0] - COLOURS[0].mean()
    for name, pixels in found.items():
        coloured = np.argwhere(np.ptp(pixels.astype(int), axis=2) > 20)
        middle = coloured.mean(0) / pixels.shape[:2]
        assert middle[0] < 0.5, name  # head, or front, is up
        assert middle[1] < 0.5, name  # right, or front, is left
        assert (pixels[tuple(coloured[0])] - pixels[tuple(coloured[0])].mean()) @ tint > 0
    assert found["coronal"].shape == (220, round(220 * 40 / 64), 3)
    turned = [np.flip(values, (0, 1)) for values in (image, mask, 0 * mask)]
    for name, pixels in planes(*turned, spread @ LPS):
        assert np.array_equal(pixels, found[name])


def test_a_flat_picture_has_one_plane() -> None:
    mask = np.zeros((10, 20), np.int16)
    mask[2:5, 2:5] = 3
    (plane,) = planes(np.ones((10, 20), np.float32), mask, mask, np.eye(4))
    assert plane[0] == "picture"
    assert plane[1].shape == (110, 220, 3)
    assert (plane[1][22:55, 22:55] == COLOURS[2]).all(2).any()  # the outline of the prediction


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    evaluated(tmp_path, overlays=False)
    assert not isinstance(named(sections(tmp_path), "Cases").parts[0], Pictures)
    (tmp_path / "evaluation" / "test" / "cases.json").write_text("[{")
    with pytest.raises(DataError, match="renshu evaluate writes it again"):
        sections(tmp_path)
