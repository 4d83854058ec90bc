"""The report of a run: one HTML page that opens offline, and a model card."""

from renshu.report.parts import (
    Chart,
    Headline,
    Part,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
)
from renshu.report.run import Run, Series, read_run
from renshu.report.sections import estimate
from renshu.report.write import write_report

__all__ = [
    "Chart",
    "Headline",
    "Part",
    "Picture",
    "Pictures",
    "Run",
    "Section",
    "Series",
    "Table",
    "Text",
    "estimate",
    "read_run",
    "write_report",
]
