"""leaderboard.html: one page that opens without a network, and a page for every series."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from renshu.loggers.files import write_atomically
from renshu.report import Headline, Section, Table, Text
from renshu.report.html import Page, esc
from renshu.report.write import share_script
from renshu_tasks.anomaly.bench import charts
from renshu_tasks.anomaly.bench.figures import FIGURES
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.bench.pages import write_page
from renshu_tasks.anomaly.bench.ranks import mean_ranks
from renshu_tasks.anomaly.bench.stored import read_stored
from renshu_tasks.anomaly.bench.table import FEWEST, Standing, by_group, matrix, standings, usable
from renshu_tasks.anomaly.detectors import TRIVIAL
from renshu_tasks.anomaly.lint import Finding, lint
from renshu_tasks.anomaly.series import Series


def write_leaderboard(folder: Path, rows: Sequence[Row], figure: str = "vus_pr") -> Path:
    """Write leaderboard.html and its pages from rows and the files beside them; returns its path.

    Raises DataError for rows of several modes of VUS, ConfigError without plotly.
    """
    ranked = standings(rows, figure)
    stored = _stored(folder, rows)
    share_script(folder)
    links = [(name, write_page(folder, name, stored[name], rows)) for name in sorted(stored)]
    sections = [
        _standings(ranked, rows, figure),
        _ranks(rows, figure),
        _cost(ranked, figure),
        _groups(rows, figure),
        _all_figures(rows),
        _warnings(rows, ranked, stored, figure),
        _failures(rows),
        _settings(rows),
    ]
    series = {row["series"] for row in rows}
    facts = [f"{len(series)} series", f"{len(ranked)} detectors", f"{len(rows)} jobs"]
    page = Page(folder, "Anomaly detection: leaderboard", facts)
    html = page.render(_headlines(ranked, figure), [], sections)
    target = folder / "leaderboard.html"
    write_atomically(target, [html.replace("</main>", f"{_links(links)}</main>", 1)])
    return target


def _stored(folder: Path, rows: Sequence[Row]) -> dict[str, Series]:
    """The series that at least one job could read."""
    found = {row["series"]: row for row in rows if row.get("reason") is None}
    return {name: read_stored(folder, row) for name, row in found.items()}


def _links(pages: Sequence[tuple[str, Path]]) -> str:
    items = "".join(
        f'<li><a href="{esc(quote(path.name))}">{esc(name)}</a></li>' for name, path in pages
    )
    return f'<section id="series"><h2>Series</h2><ul class="links">{items}</ul></section>'


def _headlines(ranked: Sequence[Standing], figure: str) -> list[Headline]:
    trivial = [one for one in ranked if one.detector in TRIVIAL]
    found = [_headline("Best", ranked[0], figure)]
    return found + [_headline("Best baseline", one, figure) for one in trivial[:1]]


def _headline(what: str, one: Standing, figure: str) -> Headline:
    return Headline(f"{what}: {one.detector}", one.value, one.low, one.high, note=FIGURES[figure])


def _standings(ranked: Sequence[Standing], rows: Sequence[Row], figure: str) -> Section:
    columns = ["detector", figure, "95 % from", "to", "between seeds", "jobs", "failed", "seconds"]
    table = Table(
        f"{FIGURES[figure]}: mean over series",
        columns,
        [
            [o.detector, o.value, o.low, o.high, o.seeds, o.jobs, o.failed, o.seconds]
            for o in ranked
        ],
        sortable=True,
    )
    count, every = (len({row["series"] for row in some}) for some in (usable(rows), rows))
    lead = (
        "A failed job counts as 0. The interval is a bootstrap over series; between seeds is the"
        " mean deviation of runs that differ in nothing else."
    )
    if every > count:
        lead += f" {every - count} series cannot be measured: they are left out for all alike."
    if count < FEWEST:
        lead += f" There is no interval over series: {count} are fewer than {FEWEST}."
    return Section("Standings", [table, charts.intervals(ranked, figure)], lead)


def _ranks(rows: Sequence[Row], figure: str) -> Section:
    series, detectors, values = matrix(rows, figure)
    if len(series) < FEWEST or len(detectors) < 3:
        why = f"{len(series)} series and {len(detectors)} detectors: ranks need {FEWEST} and 3."
        return Section("Mean ranks", empty=f"There is no diagram of ranks. {why}")
    found = mean_ranks(detectors, values)
    lead = (
        f"Detectors joined by a bar do not differ at the 5 % level: their mean ranks are closer"
        f" than {found.critical:.2f} (Nemenyi). Friedman's test that all are alike: p ="
        f" {found.p_value:.2g}. Series from one source are not independent: the test is too bold."
    )
    return Section("Mean ranks", [charts.critical_difference(found)], lead)


def _cost(ranked: Sequence[Standing], figure: str) -> Section:
    lead = "Up and to the left is better. Time is that of fitting and scoring one series."
    return Section("Accuracy and time", [charts.cost(ranked, figure)], lead)


def _groups(rows: Sequence[Row], figure: str) -> Section:
    groups, detectors, means = by_group(rows, figure)
    table = Table(
        f"{FIGURES[figure]} by data set",
        ["data set", *detectors],
        [[group, *line] for group, line in zip(groups, means.tolist(), strict=True)],
        sortable=True,
    )
    series, _, values = matrix(rows, figure)
    origin = {row["series"]: row.get("origin") or "not read" for row in rows}
    each = Table(
        f"{FIGURES[figure]} of every series",
        ["series", "origin", *detectors],
        [[name, origin[name], *line] for name, line in zip(series, values.tolist(), strict=True)],
        sortable=True,
        folded=True,
    )
    return Section("Data sets", [charts.groups(groups, detectors, means, figure), table, each])


def _all_figures(rows: Sequence[Row]) -> Section:
    detectors = sorted({row["detector"] for row in rows})
    body = []
    for name, meaning in FIGURES.items():
        cells = []
        for detector in detectors:
            known = [row[name] for row in rows if row["detector"] == detector]
            known = [value for value in known if value is not None]
            cells.append(sum(known) / len(known) if known else None)
        body.append([name, meaning, *cells])
    table = Table("Mean over jobs with a value", ["figure", "meaning", *detectors], body)
    lead = (
        "Alarms are scores above a threshold that was chosen on held-out normal points; what begins"
        " with oracle_ is chosen by the labels. Jobs without a value are left out here, in the"
        " standings they are not."
    )
    return Section("All figures", [table], lead)


def _warnings(
    rows: Sequence[Row], ranked: Sequence[Standing], stored: dict[str, Series], figure: str
) -> Section:
    findings = sorted((name, one) for name, series in stored.items() for one in lint(series))
    known = {row["series"]: (row["group"], row.get("origin")) for row in rows}
    table = Table(
        "Flaws of series",
        ["series", "data set", "origin", "check", "what", "first row", "last row"],
        [[name, *known[name], one.code, one.what, *_ends(one)] for name, one in findings],
        sortable=True,
    )
    parts: list[Text | Table] = [Text(text) for text in _against_trivial(ranked)]
    solved = {name for name, one in findings if one.code == "one_liner"}
    if solved:
        text = f"{len(solved)} of {len(stored)} series are solved by a line of code"
        parts.append(Text(f"{text}: they tell little about detectors."))
    clean = stored.keys() - {name for name, _ in findings}
    if clean and findings:
        sound = standings([row for row in rows if row["series"] in clean], figure)
        body = [[one.detector, one.value, one.low, one.high] for one in sound]
        caption = f"{FIGURES[figure]} on the {len(clean)} series without a flaw"
        columns = ["detector", figure, "95 % from", "to"]
        parts.append(Table(caption, columns, body, sortable=True))
    tables = [table] if findings else []
    return Section("Warnings", [*parts, *tables], empty="No flaw was found.")


def _against_trivial(ranked: Sequence[Standing]) -> list[str]:
    """Which detectors are no better than a line of code."""
    trivial = max((one.value for one in ranked if one.detector in TRIVIAL), default=None)
    if trivial is None:
        return ["There is no trivial baseline in this table: add random and difference."]
    beaten = [o.detector for o in ranked if o.value <= trivial and o.detector not in TRIVIAL]
    return [f"Not above the best trivial baseline: {', '.join(beaten)}."] if beaten else []


def _ends(finding: Finding) -> tuple[int | None, int | None]:
    return finding.rows or (None, None)


def _failures(rows: Sequence[Row]) -> Section:
    body = [
        [row["series"], row["detector"], row["seed"], row["reason"]]
        for row in rows
        if row.get("reason") is not None
    ]
    table = Table("Jobs without a result", ["series", "detector", "seed", "reason"], body)
    return Section("Failures", [table] if body else [], empty="Every job has a result.")


def _settings(rows: Sequence[Row]) -> Section:
    names = ("mode", "budget", "retrain", "evidence", "commit", "code", "window_rule")
    names += ("protocol", "origin", "part")
    body = []
    for name in names:
        values = sorted({str(row[name]) for row in rows if row.get(name) is not None})
        body.append([name, ", ".join(values)])
    windows = sorted({row["window"] for row in rows if row.get("window") is not None})
    body.append(["window", ", ".join(map(str, windows))])
    return Section("Settings", [Table("What holds for the rows", ["what", "values"], body)])
