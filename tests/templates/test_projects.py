"""Every pair of options works: projects are installed, linted, checked, tested and trained."""

from __future__ import annotations

import shutil
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from renshu_templates.answers import Answers
from renshu_templates.template import Template

from .helpers import NAMES, find

pytest.importorskip("allpairspy", reason="the dev extra is not installed")

from .combination import NAME, QUICK, Workshop, require, run
from .pairs import combinations_of, pairs, possible_pairs

COMBINATIONS = [(name, answers) for name in NAMES for answers in combinations_of(find(name))]


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A template's workshop by its name; it is set up once."""

    @cache
    def find_workshop(name: str) -> Workshop:
        return Workshop(find(name), tmp_path_factory.mktemp(name))

    return find_workshop


def test_the_combinations_hold_every_pair_that_is_allowed(
    template: Template,
) -> None:
    chosen = combinations_of(template)
    keys = {key for key, question in template.questions.items() if question.choices}
    covered = set().union(*(pairs(answers, keys) for answers in chosen))
    assert covered == possible_pairs(template)
    print(f"{template.name}: {len(chosen)} combinations, {len(covered)} pairs of options")


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("name", "answers"), COMBINATIONS, ids=[f"{name}-{a['name']}" for name, a in COMBINATIONS]
)
def test_every_combination_works(name: str, answers: Answers, run_dir: Path, workshop: Any) -> None:
    # pains/templates.md rows 27 and 28
    workshop(name).work(answers, run_dir)


LONG = ("image_classification", "segmentation", "text")
"""Tasks whose combination takes minutes: CI's forty do not hold all."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.nightly if name in LONG else pytest.mark.slow)
        for name in NAMES
    ],
)
def test_one_combination_of_a_task_works(name: str, run_dir: Path, workshop: Any) -> None:
    """With all files; types, tests and notebook of it are in the nightly ones."""
    # pains/templates.md rows 27 and 28
    chosen = {"name": NAME, "serving": "fastapi", "slurm": True, "kubernetes": True}
    steps = (*QUICK, "tests") if name == "blank" else QUICK
    workshop(name).work(find(name).complete(chosen), run_dir, steps)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_one_combination_of_a_task_is_installed_from_nothing(
    name: str, run_dir: Path, root: Path
) -> None:
    """By the words of its README, into an empty environment, renshu from its wheel."""
    if not (root / "framework").is_dir():
        pytest.skip("there is no checkout to build the wheel of")
    require(name, ["pip"])
    template = find(name)
    project = template.create(template.complete({"name": NAME, "serving": "fastapi"}), run_dir)
    pip = [sys.executable, "-m", "pip"]
    run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", str(root)], run_dir)
    run([sys.executable, "-m", "venv", ".venv"], project)
    python = str(project / ".venv" / "bin" / "python")
    wheel = next(run_dir.glob("wheels/renshu-*.whl"))
    demo = f"renshu[templates,demo] @ {wheel.as_uri()}"
    run([python, "-m", "pip", "install", "--quiet", demo, "--editable", ".[dev]"], project)
    run([python, "-m", "pip", "check"], project)
    run([python, "-m", "pytest", "-q", "-p", "no:cacheprovider"], project)
    flags = [*template.about["test"]["train"], "--trainer.run", "short"]
    run([python, "-m", f"{NAME}.train", *flags], project)
    assert (project / "runs" / "short" / "report.html").is_file()
    shutil.rmtree(project / ".venv")  # some gigabytes
