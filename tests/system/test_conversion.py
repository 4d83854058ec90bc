"""Every stage of examples/conversion runs, and all stages of a folder end with the same weights."""

from __future__ import annotations

import logging
import runpy
import warnings
from contextlib import chdir
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "conversion"
FIRST = {
    "from_torch": "step1_plain",
    "from_lightning": "step1_lightning",
    "from_transformers": "step1_trainer",
}
LATER = [
    ("from_torch", "step2_module"),
    ("from_torch", "step3_trainer"),
    ("from_torch", "step4_run"),
    ("from_lightning", "step2_import"),
    ("from_lightning", "step3_renshu"),
    ("from_transformers", "step2_module"),
    ("from_transformers", "step3_run"),
]
MARKED = [
    pytest.param(*row, marks=[pytest.mark.slow] if row[0] == "from_transformers" else [])
    for row in LATER
]
NEEDS = {
    "from_lightning": ["pytorch_lightning"],
    "from_transformers": ["transformers", "accelerate"],
}


@cache
def stage(folder: str, name: str) -> dict[str, Any]:
    """What a stage left in its variables and files, run in an empty folder."""
    for package in NEEDS.get(folder, []):
        pytest.importorskip(package, reason=f"{package} is not installed")
        logging.getLogger(package).setLevel(logging.ERROR)
    # Attention sums in an order that depends on how memory is aligned: in double that is small.
    kind = torch.float64 if folder == "from_transformers" else torch.float32
    with TemporaryDirectory() as work, chdir(work), warnings.catch_warnings():
        # What the first stages' packages warn of is not ours to mend.
        warnings.simplefilter("ignore" if FIRST[folder] == name else "error")
        torch.set_default_dtype(kind)
        try:
            found = runpy.run_path(str(FOLDER / folder / f"{name}.py"))
        finally:
            torch.set_default_dtype(torch.float32)
        return {**found, "files": {str(path) for path in Path().glob("**/*")}}


def test_every_script_is_one_of_the_stages() -> None:
    there = {(file.parent.name, file.stem) for file in FOLDER.glob("*/*.py")}
    assert there == {*FIRST.items(), *LATER}


@pytest.mark.parametrize(("folder", "name"), MARKED)
def test_a_stage_ends_with_the_weights_of_the_first(folder: str, name: str) -> None:
    # capabilities A2
    first, later = stage(folder, FIRST[folder]), stage(folder, name)
    pairs = zip(first["model"].parameters(), later["model"].parameters(), strict=True)
    apart = max(float((a - b).detach().abs().max()) for a, b in pairs)
    assert apart < (1e-9 if folder == "from_transformers" else 1e-6)
    assert later["accuracy"] == pytest.approx(first["accuracy"], abs=1e-6)
    # A model that learned nothing has 0.1.
    assert first["accuracy"] > (0.5 if folder == "from_transformers" else 0.9)


@pytest.mark.parametrize(
    ("folder", "name"),
    [p for p in MARKED if p.values in (LATER[2], LATER[4], LATER[6])],
)
def test_the_last_stage_leaves_a_run_that_can_be_continued(folder: str, name: str) -> None:
    files = stage(folder, name)["files"]
    assert "runs/digits/metrics.csv" in files
    assert any(file.startswith("runs/digits/checkpoints/") for file in files)


def test_the_model_restored_in_the_last_torch_stage_predicts_as_the_best_one() -> None:
    found = stage("from_torch", "step4_run")
    x, y = zip(*found["val"], strict=True)
    hits = found["restored"](torch.stack(x)).argmax(1) == torch.stack(y)
    best = found["best"].best_model_score
    assert float(hits.float().mean()) == pytest.approx(float(best), abs=1e-6)


@pytest.mark.slow
def test_the_hugging_face_model_is_saved_as_before() -> None:
    files = stage("from_transformers", "step3_run")["files"]
    assert {"digits-vit/config.json", "digits-vit/model.safetensors"} <= files
