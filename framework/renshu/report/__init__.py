"""The report of a run: one HTML page that opens offline, and a model card."""

from renshu.report.parts import Chart, Headline, Picture, Pictures, Section, Table, Text
from renshu.report.sections import estimate
from renshu.report.write import write_report

__all__ = [
    "Chart",
    "Headline",
    "Picture",
    "Pictures",
    "Section",
    "Table",
    "Text",
    "estimate",
    "write_report",
]
