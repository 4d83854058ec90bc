"""What the repository promises about itself: files, lint rules, sizes, entry points, README."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

PACKAGES = {
    "framework": "renshu",
    "tasks": "renshu_tasks",
    "templates": "renshu_templates",
}
# Written in two parts so that this file does not name them either.
REGISTRIES = [
    name + end
    for name, ends in {"pypi": (".org", ".python"), "npmjs": (".com", ".org")}.items()
    for end in ends
] + ["pythonhosted" + ".org", "files.python" + "hosted"]


@pytest.fixture(scope="module")
def files(root: Path) -> list[Path]:
    """All files that git tracks."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("not a git work tree")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    names = listed.stdout.decode().split("\0")
    return [root / name for name in names if name and (root / name).is_file()]


def test_no_file_names_the_host_of_a_package_registry(files: list[Path]) -> None:
    for file in files:
        text = file.read_bytes().decode(errors="ignore").lower()
        found = [name for name in REGISTRIES if name in text]
        assert not found, f"{file}: {found}"


def test_no_large_file_is_tracked(files: list[Path]) -> None:
    for file in files:
        assert file.stat().st_size < 1_000_000, f"{file} has {file.stat().st_size} bytes"


def test_core_and_command_line_stay_within_their_sizes(root: Path) -> None:
    size = runpy.run_path(str(root / "tools" / "size.py"))
    for part, lines in size["sizes"]().items():
        assert sum(lines.values()) <= size["LIMITS"][part], part


def test_code_lines_leave_out_blanks_comments_and_docstrings(root: Path) -> None:
    count: Callable[[str], int] = runpy.run_path(str(root / "tools" / "size.py"))["code_lines"]
    source = '''"""Module.

Two paragraphs.
"""

import os  # counted


class A:
    """A class."""

    value = """a string
that is code"""
    """What the attribute is."""

    # a comment
    def f(self):
        """Docstring."""
        return [
            1,

            2,
        ]
'''
    # import, class, value (2 lines), def, and the return's 5 lines less its blank one
    assert count(source) == 1 + 1 + 2 + 1 + 4


def test_readme_shows_the_classifier_as_it_runs(root: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text("utf-8"), re.DOTALL)
    example = (root / "examples" / "classifier.py").read_text(encoding="utf-8")
    assert example in blocks
    assert len([line for line in example.splitlines() if line.strip()]) <= 25


def test_readme_has_the_benchmarks_in_full(root: Path) -> None:
    """Every stored figure is in the table: it is written by `make bench`, not by hand."""
    sys.path.insert(0, str(root / "benchmarks"))
    try:
        table: Any = __import__("_table")
    finally:
        sys.path.remove(str(root / "benchmarks"))
    results = sorted(table.RESULTS.glob("*.json"))
    if not results:
        pytest.skip("no benchmark has been run in full yet")
    records = [__import__("json").loads(file.read_text("utf-8")) for file in results]
    assert table.markdown(records) in (root / "README.md").read_text(encoding="utf-8")


def test_links_in_the_documents_lead_somewhere(root: Path) -> None:
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "DATA_LICENSES.md"):
        text = (root / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (root / target).exists(), f"{name}: {target}"


def test_the_changelog_has_a_place_for_what_comes_next(root: Path) -> None:
    assert re.search(r"^## Unreleased$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_commands_of_the_readme_are_targets_of_the_makefile(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = {
        target
        for file in ("README.md", "CONTRIBUTING.md")
        for target in re.findall(r"\bmake ([a-z-]+)", (root / file).read_text(encoding="utf-8"))
    }
    assert named <= targets
    assert {"demo", "test", "test-slow", "nightly", "lint", "bench", "size"} <= targets


def test_entry_points_are_those_of_pyproject_and_load_without_torch(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["entry-points"]["renshu.tasks"]
    found = {point.name: point.value for point in entry_points(group="renshu.tasks")}
    assert found == wanted
    code = (
        "import sys\n"
        "from importlib.metadata import entry_points\n"
        "for point in entry_points(group='renshu.tasks'):\n"
        "    task = point.load()\n"
        "    task.options()\n"
        "    assert task.name == point.name, task.name\n"
        "import renshu.options, renshu.intervals, renshu.errors\n"
        "heavy = {'torch', 'numpy', 'torchvision', 'torchmetrics', 'rich', 'jsonargparse'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_importing_renshu_brings_neither_metrics_nor_pictures() -> None:
    # pains/trainer.md row 43
    code = (
        "import sys, renshu\n"
        "from renshu import Trainer, Module, DataModule, Callback, seed_everything\n"
        "Trainer(accelerator='cpu')\n"
        "heavy = {'torchmetrics', 'torchvision', 'tensorboard', 'plotly', 'PIL', 'jsonargparse'}\n"
        "print(sorted((heavy | {'sklearn', 'pandas', 'matplotlib', 'scipy'}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_every_package_says_that_it_is_typed(root: Path) -> None:
    for folder, package in PACKAGES.items():
        assert (root / folder / package / "py.typed").is_file()


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over the packages in `folder`."""
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed")
    paths = os.pathsep.join(str(folder / name) for name in PACKAGES)
    return subprocess.run(
        [str(program), "--no-cache"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


def copy_packages(root: Path, folder: Path) -> None:
    """The three packages and the lint's settings, to be altered."""
    shutil.copy(root / "pyproject.toml", folder)
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / name, folder / name, ignore=ignore)


def test_all_import_rules_are_kept(root: Path) -> None:
    done = lint_imports(root)
    assert done.returncode == 0, done.stdout[-3000:]


FORBIDDEN = [
    ("framework/renshu/errors.py", "import renshu_tasks", "never back"),
    ("tasks/renshu_tasks/__init__.py", "import renshu_templates", "never back"),
    ("framework/renshu/trainer.py", "import rich.table", "import rich"),
    ("framework/renshu/report/run.py", "import jsonargparse", "imports jsonargparse"),
    ("framework/renshu/cli/main.py", "import plotly.io", "imports plotly"),
    ("framework/renshu/loops.py", "import renshu.callbacks.early_stopping", "The loops know"),
    ("framework/renshu/module.py", "import renshu.loops", "Module knows"),
    ("framework/renshu/checkpoints/format.py", "import renshu.trainer", "Checkpoints know"),
    ("framework/renshu/options.py", "import torch", "neither torch nor numpy"),
    ("tasks/renshu_tasks/image_classification/__init__.py", "import numpy", "neither torch"),
    ("tasks/renshu_tasks/other/__init__.py", "import renshu_tasks.image_classification", "Tasks"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("file", "line", "rule"), FORBIDDEN, ids=[row[2] for row in FORBIDDEN])
def test_a_forbidden_import_is_found(
    root: Path, tmp_path: Path, file: str, line: str, rule: str
) -> None:
    copy_packages(root, tmp_path)
    target = tmp_path / file
    target.parent.mkdir(exist_ok=True)
    with target.open("a", encoding="utf-8") as stream:
        stream.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    broken = " ".join(part for part in done.stdout.split("\n\n") if "BROKEN" in part)
    assert done.returncode == 1
    assert rule in " ".join(broken.split())
