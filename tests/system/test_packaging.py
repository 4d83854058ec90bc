"""The wheel: what is in it, and that it says the truth about itself."""

from __future__ import annotations

import email
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

SOURCES = {
    "framework": "renshu",
    "tasks": "renshu_tasks",
    "templates": "renshu_templates",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel built from a copy of what git tracks."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("not a git work tree")
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked(root):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", built, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(built.glob("renshu-*.whl")))


def tracked(root: Path) -> list[str]:
    """Names of the files that git tracks and that are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True)
    return [name for name in listed.stdout.decode().split("\0") if name and (root / name).is_file()]


def test_the_wheel_has_every_file_of_the_packages_and_nothing_else(
    root: Path, wheel: zipfile.ZipFile
) -> None:
    expected = {
        name.partition("/")[2]
        for name in tracked(root)
        if name.partition("/")[0] in SOURCES and "/" in name
    }
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == expected
    assert {f"{package}/py.typed" for package in SOURCES.values()} <= found


def test_the_wheel_says_what_pyproject_says(root: Path, wheel: zipfile.ZipFile) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = f"renshu-{project['version']}.dist-info"
    metadata = email.message_from_string(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "renshu"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == project["requires-python"]
    assert set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    points = wheel.read(f"{info}/entry_points.txt").decode()
    assert "renshu = renshu.cli.main:main" in points
    assert "image_classification = renshu_tasks.image_classification:task" in points
    assert {f"{info}/licenses/LICENSE", f"{info}/licenses/DATA_LICENSES.md"} <= set(
        wheel.namelist()
    )
