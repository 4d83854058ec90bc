"""`renshu predict RUN FILES… --out predictions.csv`: one row a file, in order."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from renshu.errors import DataError

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Predict file by file; the table appears only when it is complete."""
    parser = argparse.ArgumentParser(
        "renshu predict",
        description="Predict files with a trained run. Options of its task replace those of its"
        " config.yaml. Text that a spreadsheet would run as a formula is led by an apostrophe.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name below runs/")
    parser.add_argument("files", metavar="FILE", nargs="+", help="what to predict")
    parser.add_argument(
        "--out", required=True, type=Path, help="the table, such as predictions.csv"
    )
    parser.add_argument(
        "--ckpt_path",
        default="best",
        help="best: the finished model (default); last: the newest checkpoint; or a path",
    )
    asked, changes = parser.parse_known_args(arguments)

    from renshu.cli import trained
    from renshu.cli.table import TableWriter

    files = [Path(name) for name in asked.files]
    if missing := [str(path) for path in files if not path.exists()]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError("there is no such file", where=", ".join(missing[:5]) + more)
    found = trained.find(asked.run, asked.ckpt_path, changes)

    from renshu.cli.training import load_part

    request = found.request
    load_part(request, "module")
    module = trained.module_class(found.task).load_from_checkpoint(found.checkpoint)
    module.to(found.device()).eval()
    with TableWriter(asked.out) as table:
        for row in load_part(request, "predict")(module, files, request.options):
            table.write(row)
    print(f"{table.rows} rows in {asked.out}")
    return 0
