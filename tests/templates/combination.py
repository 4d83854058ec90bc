"""All that is done with a generated project, so that it is known to work."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from renshu.task import find_task
from renshu_templates.answers import Answers
from renshu_templates.template import Template

NAME = "combination"
DESCRIPTION = """Größe "x", it's {{ y }}: # 😀"""
LEARNING = ("config.yaml", *(f"{NAME}/{part}.py" for part in ("config", "data", "model", "train")))
READS = {
    "types": (f"{NAME}/*.py",),
    "tests": ("config.yaml", f"{NAME}/*.py", "tests/*.py"),
    "training": LEARNING,
    "results": LEARNING,
    "notebook": (*LEARNING, "notebooks/*"),
}
"""The files that the long steps depend on."""
QUICK = ("install", "lint", "deployment", "training")
"""Steps that every change passes; the others are long."""
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
NotebookClient(nbformat.read(sys.argv[1], 4), timeout=900, kernel_name="python3").execute()
"""
HADOLINT = Path(sys.executable).with_name("hadolint")


class Workshop:
    """The steps for the projects of one template, in an environment that borrows this one's.

    Every project is installed into it and replaces the one before. A long step is not repeated for
    files, byte for byte, that have passed it.
    """

    def __init__(self, template: Template, home: Path) -> None:
        needed = [*template.about["test"].get("packages", ()), "hatchling", "fastapi"]
        require(template.name, needed)
        self.template, self.home = template, home
        self.passed: set[str] = set()
        self.python = borrowing_environment(home / "environment")

    def work(self, answers: Answers, into: Path, steps: tuple[str, ...] = ()) -> None:
        """Make a project and take it through the steps, without any named through all."""
        if answers["logger"] != "csv":
            require(self.template.name, [str(answers["logger"])])
        answers = answers | {"name": NAME, "description": DESCRIPTION, "author": DESCRIPTION}
        project = self.template.create(answers, into)
        methods: dict[str, Callable[[Path], None]] = {
            "install": self.install,
            "lint": self.lint,
            "deployment": self.deployment,
            "types": self.types,
            "tests": self.tests,
            "training": self.training,
            "results": self.results,
            "notebook": self.notebook,
        }
        for name in steps or methods:
            known = digest(name, project) if name in READS else ""
            if not known or known not in self.passed:
                start = time.perf_counter()
                methods[name](project)
                self.passed.add(known)
                print(f"{self.template.name} {name}: {time.perf_counter() - start:.1f} s")

    def install(self, project: Path) -> None:
        """What pyproject.toml asks for; what is missing here comes from the index."""
        options = ["--python", str(self.python), "install", "--quiet", "--no-build-isolation"]
        module("pip", *options, ".[dev]", cwd=project)

    def lint(self, project: Path) -> None:
        # pains/templates.md row 27
        module("ruff", "check", "--no-cache", ".", cwd=project)
        module("ruff", "format", "--no-cache", "--check", ".", cwd=project)

    def deployment(self, project: Path) -> None:
        """Dockerfile, workflow, manifest and job script, as far as they were chosen."""
        if (project / "Dockerfile").exists():
            run([str(HADOLINT), "Dockerfile"], project)
        if workflows := [str(file) for file in project.glob(".github/workflows/*.yml")]:
            schema = ["--builtin-schema", "vendor.github-workflows"]
            module("check_jsonschema", *schema, *workflows, cwd=project)
        if (manifest := project / "deploy" / "kubernetes.yaml").exists():
            for document in yaml.safe_load_all(manifest.read_text(encoding="utf-8")):
                import_module("kubernetes_validate").validate(document, "1.34", strict=True)
        if (project / "deploy" / "slurm.sh").exists():
            run(["bash", "-n", "deploy/slurm.sh"], project)

    def types(self, project: Path) -> None:
        module("pyright", "--pythonpath", str(self.python), cwd=project)

    def tests(self, project: Path) -> None:
        self.module(project, "pytest", "-q", "-p", "no:cacheprovider")

    def training(self, project: Path) -> None:
        """A short run with the embedded data reaches what the template names."""
        # pains/templates.md row 28
        wanted = self.template.about["test"]
        self.module(project, f"{NAME}.train", *wanted["train"], "--trainer.run", "short")
        measured = project / "runs" / "short" / "evaluation" / "test" / "metrics.json"
        reached = figure(json.loads(measured.read_text(encoding="utf-8")), wanted["metric"])
        assert reached >= wanted["least"], f"{wanted['metric']} {reached}"
        assert (project / "runs" / "short" / "report.html").is_file()

    def results(self, project: Path) -> None:
        """The commands that take the run of the training before."""
        if task := self.template.about.get("task"):
            self.module(project, "renshu", "evaluate", "runs/short")
            for form in find_task(task).exports:
                self.module(project, "renshu", "export", "runs/short", "--to", form)
                assert any((project / "runs" / "short" / "export" / form).iterdir())
        self.module(project, "renshu", "report", "runs/short")
        self.module(project, "renshu", "doctor")

    def notebook(self, project: Path) -> None:
        run([str(self.python), "-c", EXECUTE, "notebooks/explore.ipynb"], project)

    def module(self, project: Path, name: str, *arguments: str) -> None:
        """A module of Python in the environment of the project."""
        run([str(self.python), "-m", name, *arguments], project)


def module(name: str, *arguments: str, cwd: Path) -> None:
    """A module of the Python that the tests run with."""
    run([sys.executable, "-m", name, *arguments], cwd)


def run(command: list[str], cwd: Path) -> None:
    """Run a command; the test fails with what it said if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=1500,
    )
    shown = " ".join(command[1:])
    assert done.returncode == 0, f"{shown}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def require(name: str, packages: list[str]) -> None:
    """Skip where a package that a test runs with is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} needs {package}, which is not installed")


def borrowing_environment(folder: Path) -> Path:
    """An empty environment whose path leads to the packages that are here; its Python."""
    run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder.parent)
    scheme = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=scheme))
    packages = [import_module(name) for name in ("renshu", "renshu_tasks", "renshu_templates")]
    homes = {str(Path(str(package.__file__)).parents[1]) for package in packages}
    lines = [sysconfig.get_path("purelib"), *sorted(homes)]
    (site / "borrowed.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "bin" / "python"


def digest(step: str, project: Path) -> str:
    """The step and all that the files it depends on hold, in one word."""
    total = hashlib.sha256(step.encode())
    for file in sorted(file for pattern in READS[step] for file in project.glob(pattern)):
        total.update(f"{file.relative_to(project)}\n".encode() + file.read_bytes())
    requirements = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    total.update(str(requirements["dependencies"]).encode())
    return total.hexdigest()


def figure(measured: dict[str, Any], metric: str) -> float:
    """The main figure: a number, or a number with its interval."""
    value = measured[metric]
    return value["value"] if isinstance(value, dict) else value
