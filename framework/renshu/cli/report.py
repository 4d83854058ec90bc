"""`renshu report RUN`: write report.html and model_card.md from a run's files again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Write the report and print its path."""
    parser = argparse.ArgumentParser("renshu report", description=__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="folder of a run, or its name below runs/")
    asked = parser.parse_args(arguments)

    from renshu.cli import trained
    from renshu.report import write_report

    print(write_report(trained.run_dir(asked.run)))
    return 0
