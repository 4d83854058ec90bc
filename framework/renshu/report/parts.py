"""What a report is made of: plain data. Nothing here knows HTML; any string may be hostile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Cell = str | int | float | bool | None
"""A value of a table; None and NaN are shown as a dash."""


@dataclass(frozen=True)
class Headline:
    """One of the few figures that stand on top of the report.

    Attributes:
        name: what is measured, such as "Test accuracy".
        value: the figure.
        low, high: its 95 % interval, where there is one.
        unit: "%" shows 0.99 as 99.0 %; any other text follows the number.
        note: how it was measured, in a few words.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph; with `code` a block that can be copied."""

    text: str
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Attributes:
        caption: what the table holds; read out by screen readers.
        columns: the heads.
        rows: as many cells each as there are columns.
        sortable: a click on a head sorts by it.
        bars: columns of shares in [0, 1]: three decimals and a small bar.
        folded: shown only when opened.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    bars: Sequence[str] = ()
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure drawn by plotly, with the same numbers as a table.

    Attributes:
        title: what is drawn.
        alt: what it shows, for a reader who cannot see it.
        traces: plotly's traces. Strings are shown as they are: markup in them is inert, "\\n" is a
            new line. A colour may be a variable of the page, such as "var(--series-1)", which
            follows the light or dark scheme.
        layout: plotly's layout, above the page's own.
        table: the numbers.
        height: in pixels.
        wide: takes the full width of the page.
    """

    title: str
    alt: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    table: Table
    height: int = 320
    wide: bool = False


@dataclass(frozen=True)
class Picture:
    """PNG files of the run folder that belong together, and what is said about them.

    Attributes:
        files: image and, beside it, overlays; (path, what it shows) each.
        title: the file name or id of the sample.
        facts: name and value, such as ("true", "cat").
        confidence: a bar from 0 to 1.
    """

    files: Sequence[tuple[Path, str]]
    title: str
    facts: Sequence[tuple[str, Cell]] = ()
    confidence: float | None = None


@dataclass(frozen=True)
class Pictures:
    """A grid of pictures."""

    caption: str
    items: Sequence[Picture]


Part = Text | Table | Chart | Pictures


@dataclass(frozen=True)
class Section:
    """One chapter of the report.

    Attributes:
        title: its heading.
        parts: what it shows, in order. None left: the section says `empty`.
        lead: a sentence or two under the heading: what is shown and how to read it.
        headlines: figures that this section gives to the top of the report.
        card: its lead, texts and tables stand in the model card as well.
        empty: what is said when there is nothing to show, and what would bring it.
    """

    title: str
    parts: Sequence[Part] = ()
    lead: str = ""
    headlines: Sequence[Headline] = ()
    card: bool = False
    empty: str = "Nothing was recorded for this section."
