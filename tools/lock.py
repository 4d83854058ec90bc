"""Lock the requirements of generated projects: `python tools/lock.py`, for a release.

Writes requirements.lock into each template: the versions in this environment, which the tests have
run with, of everything that its projects need, with the SHA-256 sums of all files of a version, for
every system and Python from 3.11, and no line that names an index. It needs `uv` (pip install uv)
and the package index that pip uses. renshu itself is not in a lock: its version is the template's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "templates" / "renshu_templates"
HEAD = """# What this project was tested with, each file by its SHA-256 sum:
#   python -m pip install --require-hashes -r requirements.lock
#   python -m pip install --no-deps renshu=={version} --editable .
# Drawn with the template; ranges are in pyproject.toml.
"""


def requirements(template: Path) -> list[str]:
    """What projects of a template need, with renshu's own requirements in place of renshu."""
    renshu = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = renshu["optional-dependencies"]
    part = next(template.glob("*cookiecutter*/pyproject.toml")).read_text(encoding="utf-8")
    wanted = re.findall(r'"(\w+)"', part.partition("extras = [")[2].partition("]")[0])
    own = re.findall(r"'\"(.+?)\"'", part)
    found = [*renshu["dependencies"], *own, "jsonargparse[signatures]"]
    for extra in (*wanted, "report", "serve"):
        found += extras[extra]
    return found


def installed() -> list[str]:
    """`name==version` of every package in this environment but renshu."""
    found = {one.name: one.version for one in distributions()}
    return sorted(f"{name}=={number}" for name, number in found.items() if name != "renshu")


def lock(template: Path, version: str) -> None:
    """Write one template's requirements.lock."""
    target = next(template.glob("*cookiecutter*")) / "requirements.lock"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "requirements.in")
        source.write_text("\n".join(requirements(template)) + "\n", encoding="utf-8")
        tested = Path(folder, "tested.txt")
        tested.write_text("".join(f"{line}\n" for line in installed()), encoding="utf-8")
        options = [
            "--constraint",
            str(tested),
            "--universal",
            "--python-version",
            "3.11",
            "--generate-hashes",
            "--no-header",
        ]
        options += ["--no-annotate", "--no-emit-index-url", "--output-file", str(target)]
        command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", *options, str(source)]
        subprocess.run(command, check=True)
    locked = target.read_text(encoding="utf-8")
    if re.search(r"^(-i|--index|--extra-index|--find-links)|https?://", locked, re.MULTILINE):
        raise SystemExit(f"{target} names an index")
    target.write_text(HEAD.format(version=version) + locked, encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {locked.count('==')} packages")


def main() -> None:
    """Lock all templates, or those that are named."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = sys.argv[1:] or [file.parent.name for file in TEMPLATES.glob("*/template.toml")]
    for name in sorted(names):
        lock(TEMPLATES / name, project["version"])


if __name__ == "__main__":
    main()
