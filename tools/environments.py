"""Run the tests against the built wheel, outside the checkout.

`python tools/environments.py wheel` installs the wheel into a fresh environment that borrows this
one's libraries: their folder is put on its path, which brings the libraries but not the checkout
(the file that links the checkout is read only in a site folder, and that folder is none there).
`python tools/environments.py lowest` installs the wheel with the lowest version of everything that
pyproject.toml names, and borrows nothing.

`--all` runs every test, not only those that this can break. Further arguments go to pytest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = {
    "wheel": "[all,demo,parity,test]",
    # Without trackers and plots: their lower bounds are the newest, which the checkout runs with,
    # and with the lowest of all else pip searches for many minutes.
    "lowest": "[vision,tensorboard,report,parity,test]",
}
# What belongs to the checkout itself is tested there, and the likeness to Lightning once.
NOT_HERE = ["test_repository.py", "test_packaging.py", "test_docs.py", "test_capabilities.py"]
NOT_HERE += ["parity", "surface.json"]
TESTS = ["-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]
# What a wheel can break: files that it must ship, entry points, programs. What old libraries can
# break: all that calls them. `--all` runs every test in either.
PARTS = {
    "wheel": ["framework/report", "templates/test_new.py", "test_examples.py"],
    "lowest": ["framework", "tasks/image_classification"],
}

# Shows that the packages and the entry points come from the wheel.
PROOF = """
import importlib.metadata, sys, tomllib
from pathlib import Path
import renshu, renshu_tasks, renshu_templates
for package in (renshu, renshu_tasks, renshu_templates):
    assert Path(package.__file__).is_relative_to(sys.prefix), package.__file__
said = tomllib.loads(Path("pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
for group, names in said.items():
    found = {point.name for point in importlib.metadata.entry_points(group=group)}
    assert found == set(names), (group, found)
print("renshu", importlib.metadata.version("renshu"), "from", Path(renshu.__file__).parent)
"""


def build_wheel(into: Path) -> Path:
    """Build the wheel of the checkout as an installer does."""
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(into), str(ROOT)])
    return next(into.glob("renshu-*.whl"))


def lowest() -> list[str]:
    """`name==lowest` of every requirement in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = set()
    for requirement in chain(project["dependencies"], *project["optional-dependencies"].values()):
        name, _, version = requirement.partition(">=")
        if version:
            pins.add(f"{name.partition('[')[0]}=={version}")
    return sorted(pins)


def make(folder: Path, kind: str) -> Path:
    """A fresh environment with the wheel in it; its Python."""
    python = folder / "venv" / "bin" / "python"
    run([sys.executable, "-m", "venv", str(folder / "venv")])
    wheel = build_wheel(folder)
    install = [str(python), "-m", "pip", "install", "-q"]
    if kind == "wheel":
        scheme = {"base": str(folder / "venv"), "platbase": str(folder / "venv")}
        site = Path(sysconfig.get_path("purelib", vars=scheme))
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        run([*install, "--force-reinstall", "--no-deps", str(wheel)])
        run([*install, f"{wheel}{EXTRAS[kind]}"])
    else:
        constraints = folder / "lowest.txt"
        constraints.write_text("\n".join(lowest()) + "\n", encoding="utf-8")
        print(constraints.read_text(encoding="utf-8"), flush=True)
        run([*install, "-c", str(constraints), f"{wheel}{EXTRAS[kind]}"])
    return python


def test(folder: Path, python: Path, kind: str, arguments: list[str]) -> int:
    """Run the proof and the tests in a copy of what they need; pytest's exit code."""
    parts = [] if "--all" in arguments else [f"tests/{part}" for part in PARTS[kind]]
    arguments = [*parts, *(argument for argument in arguments if argument != "--all")]
    for name in ("tests", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*NOT_HERE))
    shutil.copy(ROOT / "pyproject.toml", folder)
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "RENSHU_SHARED_DATA": str(ROOT.parent / "shared" / "data"),
    }
    environment.pop("PYTHONPATH", None)
    run([str(python), "-I", "-c", PROOF], cwd=folder)
    command = [str(python), "-m", "pytest", *TESTS, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=False).returncode


def run(command: list[str], cwd: Path | None = None) -> None:
    """Run a command; the tool ends with it if it fails."""
    done = subprocess.run(command, cwd=cwd, check=False)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command[:6])} …")


def main() -> int:
    """Make the environment, test, remove it."""
    kind, *arguments = sys.argv[1:] or [""]
    if kind not in ("wheel", "lowest"):
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix=f"renshu-{kind}-") as name:
        folder = Path(name)
        return test(folder, make(folder, kind), kind, arguments)


if __name__ == "__main__":
    sys.exit(main())
