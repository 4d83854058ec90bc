"""`renshu export RUN --to FORMAT`: a model that runs without renshu, and does the same."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from renshu.cli.trained import Arguments
from renshu.errors import ConfigError

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Write, load in a fresh process, compare; the folder appears only when all is equal."""
    more = "The written model is loaded in a fresh process without renshu, and run on the evaluated"
    more += " part and on other sizes; what differs by more than the tolerance is not kept."
    parser = Arguments("export", more)
    parser.add_argument("--to", metavar="FORMAT", required=True, help="such as onnx")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: RUN/export/FORMAT")
    text = "largest difference allowed; default: the task's, 1e-5 for most"
    parser.add_argument("--tolerance", type=float, help=text)
    asked, changes = parser.parse_known_args(arguments)
    if asked.tolerance is not None and not 0 <= asked.tolerance < math.inf:
        raise ConfigError(
            f"{asked.tolerance} is no difference", where="--tolerance", allowed="0 up"
        )
    found = parser.find(asked, changes)
    request, session.run_dir = found.request, found.run_dir
    write = request.task.exporter(asked.to)
    out = asked.out or found.run_dir / "export" / asked.to
    if out.exists():
        raise ConfigError("there is something already", where=out, mend="--out with another folder")

    from renshu.cli.export_gate import export
    from renshu.cli.training import load_data

    data = load_data(request, found.run_dir)
    module = request.task.load("module_class").load_from_checkpoint(found.checkpoint).cpu().eval()
    about = {"task": request.task.name, "format": asked.to, "run": found.run_dir.name}
    record = export(write, module, data, out, about, asked.tolerance)
    difference = f"{record['largest_difference']:.1e} (allowed: {record['tolerance']:.0e})"
    print(f"checked  {record['rows']} rows in {len(record['shapes'])} shapes, in a fresh process")
    print(f"equal    outputs within {difference}")
    for name, (here, there) in record["metric"].items():
        print(f"equal    {name} {here:.6f} here, {there:.6f} there")
    print(f"model    {out}")
    return 0
