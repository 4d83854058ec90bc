"""Runs the exported model in this folder; needs neither renshu nor the code that trained it.

    python run.py                       check it on the stored cases
    python run.py CASES OUTPUTS         run every file of one folder, write the outputs to another

A case is a .safetensors file with `input.NAME` (and `output.NAME` where it is known); texts are a
JSON list in its metadata. From Python: `from model import load; load(folder)(inputs, texts)`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent


def read(file: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], list[str]]:
    """Inputs, known outputs and texts of a case."""
    with safe_open(file, "np") as case:
        arrays = {name: case.get_tensor(name) for name in case.keys()}  # noqa: SIM118
        texts = json.loads((case.metadata() or {}).get("texts", "[]"))
    parts = [
        {name.partition(".")[2]: array for name, array in arrays.items() if name.startswith(kind)}
        for kind in ("input.", "output.")
    ]
    return parts[0], parts[1], texts


def check(model) -> int:
    """Run the stored cases; 1 if an output differs by more than was allowed at the export."""
    allowed, largest = json.loads((HERE / "export.json").read_text("utf-8"))["tolerance"], 0.0
    for file in sorted((HERE / "check").glob("*.safetensors")):
        inputs, known, texts = read(file)
        found = model(inputs, texts)
        for name, array in known.items():
            gap = np.abs(found[name].astype(np.float64) - array.astype(np.float64))
            largest = max(largest, float(np.nan_to_num(gap, nan=np.inf).max(initial=0)))
    print(f"largest difference {largest:.1e}, allowed {allowed:.0e}")
    return int(largest > allowed)


def main(arguments: list[str]) -> int:
    """Check the model, or run it on a folder of cases; the exit code."""
    sys.path.insert(0, str(HERE))
    from model import load  # pyright: ignore[reportMissingImports]  # the folder's own

    model = load(HERE)
    if not arguments:
        return check(model)
    cases, outputs = map(Path, arguments)
    for file in sorted(cases.glob("*.safetensors")):
        inputs, _, texts = read(file)
        found = {name: np.ascontiguousarray(a) for name, a in model(inputs, texts).items()}
        save_file(found, outputs / file.name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
