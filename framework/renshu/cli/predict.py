"""`renshu predict RUN FILES… --out predictions.csv`: one row a file, in order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from renshu.cli.trained import Arguments
from renshu.errors import ConfigError, DataError

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Predict file by file; the table appears only when it is complete."""
    more = "Options of the task replace those of the run. Text that a spreadsheet would run as a"
    more += " formula is led by an apostrophe."
    parser = Arguments("predict", more)
    parser.add_argument("files", metavar="FILE", nargs="+", help="what to predict")
    parser.add_argument("--out", required=True, type=Path, help="table, such as predictions.csv")
    asked, changes = parser.parse_known_args(arguments)
    _check_paths(asked.files, asked.out)
    found = parser.find(asked, changes)

    from renshu.cli.table import TableWriter

    task = found.request.task
    predict, kind = task.load("predict"), task.load("module_class")
    module = found.place(kind.load_from_checkpoint(found.checkpoint)).eval()
    with TableWriter(asked.out) as table:
        for row in predict(module, [Path(name) for name in asked.files], found.request.options):
            table.write(row)
    print(f"{table.rows} rows in {asked.out}")
    return 0


def _check_paths(files: Sequence[str], out: Path) -> None:
    if missing := [name for name in files if not Path(name).exists()]:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError("there is no such file", where=", ".join(missing[:5]) + more)
    if out.suffix.lower() != ".csv":
        raise ConfigError(
            f"tables are written as CSV, not as {out.suffix or 'a file without an ending'}",
            where=f"--out {out}",
            allowed="a name that ends in .csv",
            mend=f"--out {out.with_suffix('.csv')}" if out.name else None,
        )
    if not out.parent.is_dir() or out.is_dir():
        raise ConfigError("the table cannot be written there", where=out, allowed="a file's name")
