"""The command line of `renshu bench anomaly`."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from renshu.cli.trained import CommandParser
from renshu.errors import ConfigError, DataError, unknown
from renshu_tasks.anomaly.bench.figures import HIGHER_IS_BETTER
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.bench.runner import Settings, Tell, execute, plan, recompute
from renshu_tasks.anomaly.detectors import DETECTORS as ALL
from renshu_tasks.anomaly.metrics.modes import MODES

DETECTORS = (
    "random",
    "constant",
    "difference",
    "sub_pca",
    "sub_knn",
    "kmeans",
    "iforest",
    "spectral_residual",
)
"""Eight that take seconds; the first three are trivial: who does not beat them has learned nothing.
"""


def run(arguments: Sequence[str], tell: Tell) -> int:
    """Run or recompute a benchmark and write its leaderboard; 1 if no job has a result."""
    asked = _parser().parse_args(arguments)
    if asked.figure not in HIGHER_IS_BETTER:
        raise unknown("figure to rank by", asked.figure, HIGHER_IS_BETTER, where="--figure")
    for name in asked.detectors.split(","):
        if name not in ALL:
            raise unknown("detector", name, ALL, where="--detectors")
    published = read_published(asked.published)
    folder = Path(asked.from_scores or asked.folder)
    rows = _recomputed(folder, asked, tell) if asked.from_scores else _run(folder, asked, tell)
    from renshu_tasks.anomaly.bench.leaderboard import write_leaderboard
    from renshu_tasks.anomaly.bench.text import table, write_rows

    for line in table(rows, asked.figure, published):
        tell(line)
    write_rows(folder / "rows.csv", rows)
    tell(f"rows         {folder / 'rows.csv'}")
    tell(f"leaderboard  {write_leaderboard(folder, rows, asked.figure)}")
    return int(all(row.get("reason") for row in rows))


def _run(folder: Path, asked: argparse.Namespace, tell: Tell) -> list[Row]:
    from renshu_tasks.anomaly.bench import sources
    from renshu_tasks.anomaly.bench.pool import LocalPool

    found = sources.folder(Path(asked.data)) if asked.data else sources.embedded()
    chosen = [source for source in found if asked.part in (source.part, "all")]
    if not chosen:
        raise DataError(
            f"none of {len(found)} series is for {asked.part}", where=asked.data, mend="--part all"
        )
    settings = Settings(
        folder=folder,
        detectors=asked.detectors.split(","),
        seeds=asked.seeds,
        mode=asked.mode or "exact",
        budget=asked.false_alarms,
        retrain=asked.retrain,
    )
    jobs = plan(chosen, settings)
    tell(
        f"{len(chosen)} series for {asked.part}, {len(settings.detectors)} detectors:"
        f" {len(jobs)} jobs on {asked.workers} processes"
    )
    return execute(jobs, folder, LocalPool(asked.workers, asked.seconds, asked.memory), tell)


def _recomputed(folder: Path, asked: argparse.Namespace, tell: Tell) -> list[Row]:
    if asked.data:
        raise ConfigError("--from-scores reads no data", mend="give one of --data, --from-scores")
    rows, changed = recompute(folder, asked.mode)
    tell(f"{len(rows)} rows computed again from {folder / 'scores'}; {changed} differ from before")
    return rows


def read_published(path: str | None) -> dict[tuple[str, str], float]:
    """Published VUS-PR by series and detector: a CSV file of `series,detector,vus_pr`."""
    if path is None:
        return {}
    found: dict[tuple[str, str], float] = {}
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found[row["series"], row["detector"]] = float(row["vus_pr"])
    except OSError as error:
        raise DataError(f"the table cannot be read: {error}", where=path) from error
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(
            f"a row cannot be used: {error}",
            where=f"{path}, row {len(found) + 1}",
            allowed="a head series,detector,vus_pr and numbers in its last column",
        ) from error
    return found


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "bench anomaly",
        "Series × detectors × seeds, and a leaderboard. Without --data: real labelled series that"
        " packages ship, and real normal ones with planted events. The same command again goes on"
        " where it stopped.",
    )
    parser.add_argument("--data", metavar="PATH", help="a file, or a folder of series, any format")
    parser.add_argument("--from-scores", metavar="FOLDER", help="compute every figure again")
    parser.add_argument("--folder", default="runs/bench-anomaly", help="default: %(default)s")
    parser.add_argument("--part", choices=("evaluation", "tuning", "all"), default="evaluation")
    parser.add_argument("--detectors", default=",".join(DETECTORS), help="default: %(default)s")
    parser.add_argument("--seeds", type=_count, default=3, help="runs of detectors that draw")
    parser.add_argument("--mode", choices=tuple(MODES), help="of VUS; default: exact")
    parser.add_argument("--figure", default="vus_pr", help="what ranks; default: %(default)s")
    parser.add_argument("--false-alarms", type=float, default=0.001, help="budget of the threshold")
    parser.add_argument("--retrain", type=_count, default=0, help="fit again after N points")
    parser.add_argument("--workers", type=_count, default=2, help="processes; default: 2")
    parser.add_argument("--seconds", type=float, default=600, help="limit of a job; default: 600")
    parser.add_argument("--memory", type=_count, default=4096, help="limit of a job, MB")
    parser.add_argument("--published", metavar="CSV", help="table of series,detector,vus_pr")
    return parser


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: a whole number of 1 or more is needed")
    return int(text)
