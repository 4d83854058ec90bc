"""The report of a run: one HTML page that opens offline, a model card, and what it ran on."""

import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
_HOMES = {"estimate": "sections", "write_report": "write"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: a fit needs only `renshu.report.environment`."""
    if name not in __all__:
        raise AttributeError(f"module 'renshu.report' has no attribute {name!r}")
    return pkgutil.resolve_name(f"renshu.report.{_HOMES.get(name, 'parts')}:{name}")
