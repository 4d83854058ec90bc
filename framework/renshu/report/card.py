"""The model card: what the model is, on what it was trained, how good it is, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from renshu.report.html import clean, figure, number
from renshu.report.parts import Headline, Section, Table, Text
from renshu.report.run import Run
from renshu.report.sections import command

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~$-])")


def md(value: object) -> str:
    """Text that Markdown shows as it is, on one line; no HTML, link or picture survives in it."""
    text = " ".join(clean(value).split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", text)


def card(run: Run, title: str, headlines: Sequence[Headline], sections: Sequence[Section]) -> str:
    """The whole card: headline figures, the sections marked for it, and the command."""
    what = f"a model for {md(run.task.replace('_', ' '))}" if run.task else "a model"
    blocks = [f"# {md(title)}", f"Model card of {what}, trained with renshu."]
    if headlines:
        blocks.append(_rows(["", "value", "95 % interval"], [_headline(one) for one in headlines]))
    for section in sections:
        if section.card:
            blocks += [f"## {md(section.title)}", *_section(section)]
    if run.config:
        blocks += ["## Train the same again", _code(command(run))]
    if run.problems:
        blocks += ["## Not recorded", "\n".join(f"- {md(problem)}" for problem in run.problems)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _headline(one: Headline) -> list[str]:
    value = f"{figure(one, one.value)} {one.unit}".strip()
    if one.low is None or one.high is None:
        return [one.name, value, "–"]
    return [one.name, value, f"{figure(one, one.low)} to {figure(one, one.high)}"]


def _section(section: Section) -> list[str]:
    if not section.parts:
        return [md(section.empty)]
    blocks = [md(section.lead)] if section.lead else []
    for part in section.parts:
        if isinstance(part, Text):
            blocks.append(_code(part.text) if part.code else md(part.text))
        elif isinstance(part, Table):
            rows = [[number(cell) for cell in row] for row in part.rows]
            blocks += [f"{md(part.caption)}:", _rows(part.columns, rows)]
    return blocks


def _rows(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = [f"| {' | '.join(md(c) for c in columns)} |", f"|{' --- |' * len(columns)}"]
    return "\n".join(head + [f"| {' | '.join(md(cell) for cell in row)} |" for row in rows])


def _code(text: str) -> str:
    """A fenced block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{clean(text)}\n{fence}"
