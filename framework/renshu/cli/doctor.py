"""`renshu doctor`: what is here, what is wrong, and the command that mends it."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, entry_points, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from renshu.cli.main import Session

Status = Literal["ok", "note", "broken"]

_NOT_FOR_USERS = ("all", "dev", "parity")
_LEAST_DISK = 2**30
_LEAST_SHM = 2**28
_LEAST_FILES = 1024
_FAST_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        name: what.
        status: ok; note: works, or optional; broken: needed and not usable.
        found: what there is.
        mend: the command or step that mends it.
    """

    name: str
    status: Status
    found: str
    mend: str | None = None


def _check(name: str, fine: bool, found: str, mend: str, otherwise: Status = "broken") -> Check:
    """A check that says how to mend it only if it is not fine."""
    return Check(name, "ok" if fine else otherwise, found, None if fine else mend)


def run(arguments: Sequence[str], session: Session) -> int:
    """Print every check; 0 when renshu is usable, 1 when something needed is broken."""
    parser = argparse.ArgumentParser("renshu doctor", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    checks = list(examine())
    usable = all(check.status != "broken" for check in checks)
    if asked.json:
        print(json.dumps({"usable": usable, "checks": [asdict(c) for c in checks]}, indent=2))
        return int(not usable)
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<7} {check.name:<{width}}  {check.found}")
        if check.mend:
            print(f"{'':<{width + 8}}  → {check.mend}")
    print("\nusable" if usable else "\nnot usable: see the lines marked broken")
    return int(not usable)


def examine() -> Iterator[Check]:
    """All checks; a check that fails itself is broken, and the others go on."""
    for part in (_core, _torch, _compatibility, _extras, _tasks, _places, _notebook, _project):
        try:
            yield from part()
        except Exception as error:
            yield Check(part.__name__.strip("_"), "broken", f"{type(error).__name__}: {error}")


def _requirements(package: str, extra: str = "") -> list[Requirement]:
    """What an installed package needs; with `extra` what it needs for that alone."""
    from packaging.requirements import Requirement

    def needed(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    found = map(Requirement, requires(package) or [])
    return [r for r in found if needed(r, extra) and not (extra and needed(r, ""))]


def _extra_names() -> list[str]:
    names = distribution("renshu").metadata.get_all("Provides-Extra") or []
    return [name for name in names if name not in _NOT_FOR_USERS]


def _installed(requirement: Requirement) -> tuple[str, bool]:
    """The installed version, and whether it is one that the requirement allows."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return "not installed", False
    return found, requirement.specifier.contains(found, prereleases=True)


def _core() -> Iterator[Check]:
    found = f"{platform.python_version()} ({sys.executable}), {platform.platform()}"
    yield _check("python", sys.version_info >= (3, 11), found, "Python 3.11 or newer")
    yield Check("renshu", "ok", version("renshu"))
    for wanted in _requirements("renshu"):
        found, fits = _installed(wanted)
        mend = f'pip install "{wanted.name}{wanted.specifier}"'
        yield _check(wanted.name, fits, found, mend)


def _torch() -> Iterator[Check]:
    try:
        import torch

        from renshu.report import environment
    except Exception as error:
        mend = "pip install --force-reinstall torch"
        yield Check("import torch", "broken", f"{type(error).__name__}: {error}", mend)
        return
    cpu = environment.cpu()
    fast = _FAST_BF16 & set(cpu["flags"])
    bf16 = f"bf16 fast ({', '.join(sorted(fast))})" if fast else "bf16 works, without speed-up"
    found = f"{cpu['model'] or cpu['machine']}, {cpu['cores']} cores, {cpu['capability']}, {bf16}"
    yield Check("cpu", "ok", f"{found}, {torch.get_num_threads()} threads")
    devices = environment.devices()
    for device in devices:
        yield Check("device", "ok", ", ".join(f"{key} {value}" for key, value in device.items()))
    with suppress(OSError):  # there is none
        driver = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8").split("\n")[0]
        found = f"{driver}; torch is built for CUDA {torch.version.cuda or 'not at all'}"
        mend = "a newer driver, or the build of torch that fits this one: pytorch.org"
        yield _check("NVIDIA driver", torch.cuda.is_available(), found, mend, "note")
    if not devices:
        yield Check("device", "ok", "CPU only")


def _compatibility() -> Iterator[Check]:
    """Whether the packages fit each other: torchvision names the torch that it works with."""
    names = {r.name for extra in ("", *_extra_names()) for r in _requirements("renshu", extra)}
    for name in sorted(names - {"renshu"}):
        try:
            wants = [r for r in _requirements(name) if r.name in ("torch", "numpy")]
        except PackageNotFoundError:
            continue
        for want in wants:
            found, fits = _installed(want)
            if not fits:
                needs = f"{want.name}{want.specifier}"
                said = f"{name} {version(name)} needs {needs}, {found} is here"
                mend = f'pip install --upgrade {name} "{needs}"'
                yield Check(f"{name} and {want.name}", "broken", said, mend)


def _extras() -> Iterator[Check]:
    for extra in _extra_names():
        missing = [r.name for r in _requirements("renshu", extra) if not _installed(r)[1]]
        found = f"without {', '.join(missing)}" if missing else "installed"
        yield _check(f"[{extra}]", not missing, found, f'pip install "renshu[{extra}]"', "note")


def _tasks() -> Iterator[Check]:
    mend = "pip install --force-reinstall renshu"
    points = sorted(entry_points(group="renshu.tasks"), key=lambda point: point.name)
    for point in points:
        try:
            yield Check(f"task {point.name}", "ok", point.load().summary)
        except Exception as error:
            yield Check(f"task {point.name}", "broken", f"{type(error).__name__}: {error}", mend)
    if not points:
        yield Check("tasks", "broken", "none is installed", mend)


def _places() -> Iterator[Check]:
    """Where runs are written and workers share memory."""
    here = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=here):
            yield Check("write permission", "ok", str(here))
    except OSError as error:
        mend = "work in a folder of your own, or give --trainer.default_root_dir"
        yield Check("write permission", "broken", f"{here}: {error.strerror}", mend)
    free = shutil.disk_usage(here).free
    mend = "free 1 GiB, or give --trainer.default_root_dir"
    yield _check("disk", free >= _LEAST_DISK, f"{free / 2**30:.1f} GiB free", mend)
    if Path("/dev/shm").is_dir():
        size = shutil.disk_usage("/dev/shm").free
        mend = "--data.num_workers 0, or docker run --shm-size 1g"
        found = f"{size / 2**20:.0f} MiB for loader workers"
        yield _check("shared memory", size >= _LEAST_SHM, found, mend, "note")
    with suppress(AttributeError, OSError, ValueError):  # other systems do not say
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        yield _check("memory", free >= 1, f"{free:.1f} GiB free", "end other programs", "note")
    with suppress(ImportError):
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        many = files >= _LEAST_FILES or files == resource.RLIM_INFINITY
        mend = f"ulimit -n {_LEAST_FILES}"
        yield _check("open files", many, f"up to {files}", mend, "note")
    threads = os.environ.get("OMP_NUM_THREADS", "")
    fine = not threads.isdigit() or int(threads) <= (os.cpu_count() or 1)
    found = f"OMP_NUM_THREADS={threads}" if threads else "as torch chooses"
    yield _check("threads", fine, found, "unset OMP_NUM_THREADS", "note")


def _notebook() -> Iterator[Check]:
    """Whether a notebook can run with this Python."""
    mend = "python -m ipykernel install --user --name renshu"
    try:
        found = f"ipykernel {version('ipykernel')}"
    except PackageNotFoundError:
        yield Check("notebook", "note", "no ipykernel", f"pip install ipykernel && {mend}")
        return
    programs = sorted(_kernels())
    # A kernel inside the environment may say only "python".
    fine = any(program == "python" or Path(program) == Path(sys.executable) for program in programs)
    said = f"{found}, kernels run {', '.join(programs) or 'nothing yet'}"
    yield _check("notebook", fine, said, mend, "note")


def _kernels() -> Iterator[str]:
    """The programs that the notebook kernels here start."""
    home = os.environ.get("JUPYTER_DATA_DIR", "~/.local/share/jupyter")
    for folder in (f"{sys.prefix}/share/jupyter", home, "~/Library/Jupyter"):
        for file in (Path(folder).expanduser() / "kernels").glob("*/kernel.json"):
            with suppress(OSError, ValueError, LookupError, TypeError):  # somebody else's file
                yield str(json.loads(file.read_text(encoding="utf-8"))["argv"][0])


def _project() -> Iterator[Check]:
    """The project that this folder is, if it is one of `renshu new`."""
    from renshu.cli import new, upgrade

    if Path(upgrade.FILE).is_file():
        stored = upgrade.stored(Path(upgrade.FILE))
        for found in new.find_template(str(stored["template"])).examine(Path(), stored):
            yield Check(*found)
