"""The gate of every export: what was written must do in a fresh process what the module does."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from renshu.errors import RunError
from renshu.task import Case, Exported

if TYPE_CHECKING:
    from renshu.task import Arrays

_RUN = Path(__file__).with_name("export_run.py")

# As on a machine where renshu is not installed: importing it fails.
_ALONE = """
import runpy, sys
sys.modules.update(renshu=None, renshu_tasks=None)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def export(
    write: Callable[[Any, Any, Path], Exported],
    module: Any,
    data: Any,
    out: Path,
    about: dict[str, Any],
    tolerance: float | None = None,
) -> dict[str, Any]:
    """Write a model to the new folder `out`, which appears only when it passed.

    Beside what `write` made, it holds run.py, the stored cases in check/, and export.json: what was
    compared and how large the differences were.

    Args:
        write: the task's exporter, see `renshu.task.Task`.
        module: on the CPU, in evaluation mode.
        data: its data module.
        out: a folder that does not exist yet.
        about: what export.json says besides.
        tolerance: in place of the task's.

    Returns:
        What export.json holds.

    Raises:
        RunError: the model does not run by itself, or gives something else.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    # On the same disk, so that the finished folder can be renamed.
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as scratch:
        folder, cases, found = (Path(scratch) / name for name in ("model", "cases", "found"))
        for new in (folder, cases, found):
            new.mkdir()
        shutil.copyfile(_RUN, folder / "run.py")
        exported = write(module, data, folder)
        allowed = exported.tolerance if tolerance is None else tolerance
        tried, evaluated = _store(exported.cases, cases, folder / "check")
        _run_alone(folder, cases, found)
        record = about | {"tolerance": allowed} | tried | _compare(cases, found)
        record["metric"] = _metric(exported, evaluated, cases, found)
        _refuse(record)
        record |= {"versions": _versions(), "files": _sums(folder)}
        text = json.dumps(record, indent=1, ensure_ascii=False)
        (folder / "export.json").write_text(text + "\n", encoding="utf-8")
        folder.rename(out)
    return record


def _store(cases: Iterable[Case], folder: Path, check: Path) -> tuple[dict[str, Any], list[str]]:
    """Write every case as a file; those that are nobody's data stay with the model.

    Returns what export.json says of them, and the files of the evaluated part.
    """
    check.mkdir()
    rows, shapes, evaluated = 0, set(), []
    for case in cases:
        arrays = {f"input.{name}": array for name, array in case.inputs.items()}
        arrays |= {f"output.{name}": array for name, array in case.outputs.items()}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        file = folder / f"{case.name}.safetensors"
        save_file(arrays, file, {"texts": json.dumps(list(case.texts))})
        if case.evaluation:
            evaluated.append(file.name)
        else:
            shutil.copyfile(file, check / file.name)
        first = next(iter(case.outputs.values()))
        rows += len(first)
        shapes.add(", ".join(str(list(array.shape)) for array in (*case.inputs.values(), first)))
    return {"rows": rows, "shapes": sorted(shapes)}, evaluated


def _run_alone(folder: Path, cases: Path, found: Path) -> None:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [
        sys.executable,
        "-I",
        "-B",
        "-c",
        _ALONE,
        *map(str, (folder / "run.py", cases, found)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=offline)
    if done.returncode:
        lines = done.stderr.strip().splitlines()[-3:] or [f"exit code {done.returncode}"]
        raise RunError(
            "the written model does not run by itself", where="\n           ".join(lines)
        )


def _compare(cases: Path, found: Path) -> dict[str, Any]:
    """The largest difference of all outputs, and where it is."""
    largest, where = 0.0, ""
    for file in sorted(cases.iterdir()):
        expected, outputs = _outputs(file), load_file(found / file.name)
        for name, array in expected.items():
            if name not in outputs or outputs[name].shape != array.shape:
                got = list(outputs[name].shape) if name in outputs else "nothing"
                said = f"the written model gives {got} where the module gives {list(array.shape)}"
                raise RunError(said, where=f"output {name!r} of case {file.stem}")
            gap = difference(array, outputs[name])
            if gap.size and gap.max() >= largest:
                place = [int(at) for at in np.unravel_index(gap.argmax(), gap.shape)]
                largest, where = float(gap.max()), f"output {name!r}{place} of case {file.stem}"
    return {"largest_difference": largest, "where": where}


def difference(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Distance of each pair of values: 0 for equal ones, NaN and infinity included; else finite,
    or infinite where one of them is not a number or not finite. float64, the same shape
    """
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):
        gap = np.nan_to_num(np.abs(one - other), nan=np.inf, posinf=np.inf)
    equal = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.where(equal, 0.0, gap)


def _outputs(file: Path) -> Arrays:
    with safe_open(file, "np") as case:
        names = [name for name in case.keys() if name.startswith("output.")]  # noqa: SIM118
        return {name.removeprefix("output."): case.get_tensor(name) for name in names}


def _metric(
    exported: Exported, evaluated: list[str], cases: Path, found: Path
) -> dict[str, list[float]]:
    """Each figure as it comes out here and there."""

    def outputs(read: Callable[[Path], Any], folder: Path) -> Iterator[Any]:
        return (read(folder / name) for name in evaluated)

    here = exported.metric(outputs(_outputs, cases))
    there = exported.metric(outputs(load_file, found))
    return {name: [value, there[name]] for name, value in here.items()}


def _refuse(record: dict[str, Any]) -> None:
    """Raise RunError where an output or a figure differs by more than is allowed."""
    allowed = record["tolerance"]
    if record["largest_difference"] > allowed:
        raise RunError(
            f"the written model differs by {record['largest_difference']:.3g}, so it is not kept",
            where=record["where"],
            allowed=f"{allowed:g}",
            mend="--tolerance, if that is good enough for you",
        )
    for name, (here, there) in record["metric"].items():
        if not abs(here - there) <= allowed:
            said = f"{name} is {there:.6g} with the written model, so it is not kept"
            raise RunError(
                said, where="the evaluated part", allowed=f"{here:.6g} within {allowed:g}"
            )


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("renshu", "torch", "numpy")}
    return {"python": platform.python_version(), **found}


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = {}
    for path in files:
        with path.open("rb") as file:
            sums[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
