"""The leaderboard as lines of text, and all rows as a CSV file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from renshu.cli.table import TableWriter
from renshu_tasks.anomaly.bench.figures import FIGURES
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.bench.table import FEWEST, one_measure, standings, usable


def table(
    rows: Sequence[Row], figure: str, published: Mapping[tuple[str, str], float]
) -> Iterator[str]:
    """The standings by a figure; failures with their reasons; published VUS-PR beside ours."""
    mode, found = one_measure(rows), usable(rows)
    series, every = {row["series"] for row in found}, {row["series"] for row in rows}
    planted = {row["series"] for row in rows if row.get("origin") == "planted"}
    real = {row["series"] for row in rows if row.get("origin") == "real"}
    yield (
        f"{FIGURES[figure]}; VUS in mode {mode}, window: period of each series;"
        f" {len(series)} series: {len(real)} real, {len(planted)} with planted events"
    )
    yield f"{'detector':<20}{'mean':>7}  {'95 % over series':<18}{'seeds ±':<9}{'failed':<8}seconds"
    for one in standings(rows, figure):
        ends = "–" if one.low is None else f"{one.low:.3f} to {one.high:.3f}"
        seeds = "–" if one.seeds is None else f"{one.seeds:.3f}"
        failed, seconds = f"{one.failed}/{one.jobs}", f"{one.seconds or 0:.2f}"
        yield f"{one.detector:<20}{one.value:>7.3f}  {ends:<18}{seeds:<9}{failed:<8}{seconds}"
    if len(every) > len(series):
        yield f"{len(every) - len(series)} series cannot be measured and are left out for all alike"
    if len(series) < FEWEST:
        yield f"no interval: {len(series)} series are fewer than {FEWEST}"
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row["reason"] is not None:
            reasons.setdefault((row["series"], row["reason"]), []).append(row["detector"])
    for (name, reason), detectors in reasons.items():
        yield f"no result on {name}: {reason} ({', '.join(dict.fromkeys(detectors))})"
    for row in rows:
        value = published.get((row["series"], row["detector"]))
        if value is not None:
            ours = "failed" if row["vus_pr"] is None else f"{row['vus_pr']:.4f}"
            yield f"{row['series']}, {row['detector']}: published {value:.4f}, here {ours}"


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """All rows with all their columns."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with TableWriter(path) as writer:
        for row in rows:
            writer.write({name: _cell(row.get(name)) for name in columns})


def _cell(value: object) -> object:
    return json.dumps(value) if isinstance(value, dict | list) else value
