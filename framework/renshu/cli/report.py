"""`renshu report RUN`: write report.html and model_card.md from a run's files again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from renshu.cli import trained

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Write the report and print its path."""
    asked = trained.Arguments("report", __doc__ or "", weights=False).parse_args(arguments)

    from renshu.report import write_report

    print(write_report(trained.run_dir(asked.run)))
    return 0
