"""`renshu doctor` in a generated project: what is wrong with it, and how it is mended."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from renshu.cli import doctor
from renshu_templates.template import Template

from .helpers import find

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def project(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of image classification, and the working directory in it."""
    template = find("image_classification")
    made = template.create(template.complete({"name": "rivers", "docker": "cpu"}), run_dir)
    monkeypatch.chdir(made)
    return made


def checks() -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor._project()}


def test_a_fresh_project_is_fine(project: Path, renshu: Run) -> None:
    assert {check.status for check in checks().values()} == {"ok"}
    code, said, _ = renshu("doctor", "--json")
    names = {check["name"] for check in json.loads(said)["checks"]}
    assert names > {"template", "configuration", "conflicts", "memory", "open files", "threads"}
    assert code == 0


def test_an_nvidia_driver_that_torch_cannot_use_is_told_with_both_versions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = Path.read_text

    def with_driver(self: Path, *arguments: Any, **options: Any) -> str:
        if self == Path("/proc/driver/nvidia/version"):
            return "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03\nGCC version: 12\n"
        return read(self, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", with_driver)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    check = {check.name: check for check in doctor._torch()}["NVIDIA driver"]
    assert check.status == "note"
    assert "535.54.03; torch is built for CUDA" in check.found
    assert "newer driver" in str(check.mend)


def test_outside_of_a_project_nothing_is_said_of_one(run_dir: Path) -> None:
    assert checks() == {}


WRONG = [
    ("config.yaml", "batch_size: null", "batch_sise: 8", "configuration", "batch_size"),
    ("config.yaml", "data:\n", "data: [\n", "configuration", "config.yaml"),
    ("Dockerfile", "WORKDIR /app", "<<<<<<< yours\nWORKDIR /a\n=======\n", "conflicts", "<<<<<<<"),
    ("rivers/model.py", "import torch\n", ">>>>>>> the new template\n", "conflicts", "<<<<<<<"),
]


@pytest.mark.parametrize(("path", "old", "new", "name", "mend"), WRONG)
def test_a_fault_is_named_with_what_mends_it(
    project: Path, path: str, old: str, new: str, name: str, mend: str
) -> None:
    # pains/templates.md row 7
    text = (project / path).read_text(encoding="utf-8")
    assert old in text
    (project / path).write_text(text.replace(old, new, 1), encoding="utf-8")
    check = checks()[name]
    assert check.status == "broken"
    assert mend in str(check.mend)
    assert name == "configuration" or path in check.found


def test_another_version_and_an_upgrade_that_was_stopped_are_told(project: Path) -> None:
    answers = (project / ".renshu.yaml").read_text(encoding="utf-8")
    (project / ".renshu.yaml").write_text(answers.replace('"0.1.0"', '"0.0.9"'), encoding="utf-8")
    (project / ".renshu-upgrade").mkdir()
    found = checks()
    assert (found["template"].status, found["template"].mend) == (
        "note",
        "renshu upgrade --dry-run",
    )
    assert found["upgrade"].status == "broken"


def test_the_workflow_of_a_project_refuses_conflict_marks(template: Template) -> None:
    # pains/templates.md row 7
    files = template.files(template.complete({"name": "rivers"}))
    assert b"git grep -nE '^(<<<<<<<|>>>>>>>) '" in files[".github/workflows/ci.yml"]
