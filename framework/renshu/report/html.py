"""Parts to HTML. Every string goes through `esc`; every chart's JSON through `script_json`."""

from __future__ import annotations

import hashlib
import html
import json
import math
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from renshu.report.parts import Cell, Chart, Headline, Part, Picture, Pictures, Section, Table, Text

_UNSHOWN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def clean(value: object) -> str:
    """Text without what cannot be shown or turns the direction of writing: these become U+FFFD."""
    return _UNSHOWN.sub("\ufffd", str(value))


def esc(value: object) -> str:
    """Text that is inert in HTML, also inside a quoted attribute."""
    return html.escape(clean(value), quote=True)


def number(value: Cell) -> str:
    """A cell as text: about four significant digits, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        return f"{value:.4f}" if 0.01 <= abs(value) < 1 else f"{value:.4g}"
    return clean(value)


def script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class Page:
    """Collects sections and becomes one HTML document.

    Args:
        run_dir: folder that pictures are relative to.
        title: the page's heading.
        subtitle: short facts under it.
    """

    def __init__(self, run_dir: Path, title: str, subtitle: Sequence[str]) -> None:
        self._root = run_dir.resolve()
        self._title = title
        self._subtitle = subtitle
        self._figures: list[dict[str, Any]] = []

    def render(
        self, headlines: Sequence[Headline], problems: Sequence[str], sections: Sequence[Section]
    ) -> str:
        """The whole document. The same content gives the same bytes."""
        body = "\n".join(self._section(index, section) for index, section in enumerate(sections))
        links = "".join(
            f'<li><a href="#s{i}">{esc(s.title)}</a></li>' for i, s in enumerate(sections)
        )
        data = script_json(self._figures)
        here = files("renshu.report")
        return Template((here / "page.html").read_text("utf-8")).substitute(
            title=esc(self._title),
            subtitle="".join(f"<li>{esc(fact)}</li>" for fact in self._subtitle),
            headlines="".join(_headline(headline) for headline in headlines),
            problems=_problems(problems),
            links=links,
            body=body,
            figures=data,
            style=(here / "report.css").read_text("utf-8"),
            script=(here / "report.js").read_text("utf-8"),
            # A nonce lets our two scripts run and nothing else. It is a hash of the content, so
            # that whatever was smuggled into the content cannot know it.
            nonce=hashlib.sha256((body + data).encode()).hexdigest()[:32],
        )

    def _section(self, index: int, section: Section) -> str:
        shown = section.lead if section.parts else ""
        lead = f'<p class="lead">{esc(shown)}</p>' if shown else ""
        parts = "".join(self._part(part) for part in section.parts)
        empty = "" if parts else f'<p class="empty">{esc(section.empty)}</p>'
        return (
            f'<section id="s{index}"><h2>{esc(section.title)}</h2>{lead}'
            f'<div class="parts">{parts}{empty}</div></section>'
        )

    def _part(self, part: Part) -> str:
        if isinstance(part, Text):
            tag = "pre" if part.code else "p"
            return f'<{tag} class="text">{esc(part.text)}</{tag}>'
        if isinstance(part, Table):
            wide = " wide" if part.folded or len(part.columns) > 6 else ""
            return f'<div class="part{wide}">{_table(part)}</div>'
        if isinstance(part, Chart):
            return self._chart(part)
        return self._pictures(part)

    def _chart(self, chart: Chart) -> str:
        self._figures.append({"data": _inert(chart.traces), "layout": _inert(chart.layout)})
        place = len(self._figures) - 1
        return (
            f'<figure class="part{" wide" if chart.wide else ""}">'
            f"<figcaption>{esc(chart.title)}</figcaption>"
            f'<div class="chart" data-figure="{place}" role="img" aria-label="{esc(chart.alt)}"'
            f' style="--height:{int(chart.height)}px"></div>'
            f'<details class="data"><summary>Numbers</summary>{_scroll(chart.table)}</details>'
            "</figure>"
        )

    def _pictures(self, part: Pictures) -> str:
        cards = "".join(self._picture(item) for item in part.items)
        return (
            f'<figure class="part wide"><figcaption>{esc(part.caption)}</figcaption>'
            f'<ul class="pictures">{cards}</ul></figure>'
        )

    def _picture(self, item: Picture) -> str:
        images = "".join(self._image(file, alt) for file, alt in item.files)
        facts = "".join(
            f"<dt>{esc(name)}</dt><dd>{esc(number(value))}</dd>" for name, value in item.facts
        )
        bar = "" if item.confidence is None else _bar(item.confidence)
        return (
            f'<li><div class="images">{images}</div>'
            f'<p class="name" title="{esc(item.title)}">{esc(item.title)}</p>'
            f"<dl>{facts}</dl>{bar}</li>"
        )

    def _image(self, file: Path, alt: str) -> str:
        """An image element, or a sentence where the file is missing, no PNG or outside the run."""
        try:
            path = (self._root / file).resolve()
            url = quote(os.fsencode(path.relative_to(self._root)))
            size = _png_size(path)
        except (OSError, ValueError):
            return f'<span class="missing">{esc(alt)}: no picture</span>'
        small = ' class="pixels"' if max(size) <= 160 else ""
        return (
            f'<img src="{esc(url)}" alt="{esc(alt)}" width="{size[0]}" height="{size[1]}"{small}>'
        )


def figure(headline: Headline, value: float) -> str:
    """A headline's value, or an end of its interval, as text."""
    if headline.unit == "%" and math.isfinite(value):
        return f"{100 * value:.1f}"
    return f"{value:.3f}" if 0 <= value <= 1 else number(value)


def _headline(headline: Headline) -> str:
    low, high, unit = headline.low, headline.high, esc(headline.unit)
    interval = ""
    if low is not None and high is not None:
        ends = f"{figure(headline, low)}–{figure(headline, high)}"
        interval = f'<p class="note">95 %: {esc(ends)}</p>'
        if 0 <= low <= headline.value <= high <= 1:
            interval = _range(low, high) + interval
    note = f'<p class="note">{esc(headline.note)}</p>' if headline.note else ""
    value = f'{esc(figure(headline, headline.value))} <span class="unit">{unit}</span>'
    return (
        f'<li><p class="what">{esc(headline.name)}</p><p class="value">{value}</p>'
        f"{interval}{note}</li>"
    )


def _range(low: float, high: float) -> str:
    """The interval as a mark on a line from 0 to 1."""
    return (
        f'<span class="range" aria-hidden="true" style="--low:{low:.4f};--high:{high:.4f}"></span>'
    )


def _bar(share: float) -> str:
    share = min(max(share, 0.0), 1.0)
    return f'<span class="bar" aria-hidden="true" style="--share:{share:.4f}"></span>'


def _problems(problems: Sequence[str]) -> str:
    if not problems:
        return ""
    items = "".join(f"<li>{esc(problem)}</li>" for problem in problems)
    return f'<aside class="problems"><h2>Not in this report</h2><ul>{items}</ul></aside>'


def _table(table: Table) -> str:
    if not table.folded:
        return _scroll(table)
    return (
        f'<details class="data"><summary>{esc(table.caption)}</summary>{_scroll(table)}</details>'
    )


def _scroll(table: Table) -> str:
    """A table in a box of its own, so that a wide one scrolls and the page does not."""
    head = "".join(f'<th scope="col">{esc(column)}</th>' for column in table.columns)
    body = "".join(f"<tr>{_row(table, row)}</tr>" for row in table.rows)
    kind = ' class="sortable"' if table.sortable else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(table.caption)}">'
        f"<table{kind}><caption>{esc(table.caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(table: Table, row: Sequence[Cell]) -> str:
    cells = []
    for column, value in zip(table.columns, row, strict=True):
        if type(value) is int or (isinstance(value, float) and math.isfinite(value)):
            share = column in table.bars
            shown = f"{value:.3f}{_bar(value)}" if share else number(value)
            cells.append(f'<td class="number" data-value="{value!r}">{shown}</td>')
        else:
            cells.append(f"<td>{esc(number(value))}</td>")
    return "".join(cells)


def _inert(value: Any) -> Any:
    """A figure as JSON can hold it. Plotly reads a little HTML in labels: here none is left."""
    if isinstance(value, str):
        return html.escape(clean(value), quote=False).replace("\n", "<br>")
    if isinstance(value, dict):
        return {str(key): _inert(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_inert(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _png_size(path: Path) -> tuple[int, int]:
    """Width and height of a PNG file; ValueError if it is none."""
    with path.open("rb") as file:
        head = file.read(24)
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        raise ValueError("no PNG file")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
