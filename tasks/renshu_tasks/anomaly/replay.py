"""A file as if its points arrived now: `python -m renshu_tasks.anomaly.replay RUN FILE --speed 60`.

Every alarm is told when it begins and ends; at last how long a point took from its arrival to its
verdict.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from renshu.errors import ConfigError, RenshuError
from renshu_tasks.anomaly.online import Online
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.readers import read_series
from renshu_tasks.anomaly.thresholds import Verdict

if TYPE_CHECKING:
    from renshu_tasks.anomaly.module import AnomalyDetector


@dataclass(frozen=True)
class Replayed:
    """One point of a replay.

    Attributes:
        row: number of the point, from 0.
        verdict: what was decided.
        seconds: from the point's arrival to its verdict.
    """

    row: int
    verdict: Verdict
    seconds: float


def replay(
    module: AnomalyDetector, path: str | Path, speed: float | None = None
) -> Iterator[Replayed]:
    """A file `speed` times as fast as its points were taken, or as fast as they are decided.

    Args:
        module: trained; its columns, period and rule for gaps are those of the file.
        path: any file that `read_series` reads; labels are not looked at.
        speed: 60 makes a minute a second; None waits for nothing.

    Raises DataError for a file that cannot be used.
    """
    told = module.hparams
    options = DataOptions(
        time_column=told.time_column,
        columns=list(told.channels) if Path(path).suffix.lower() in (".csv", ".parquet") else None,
        sampling="rows" if told.sampling == "rows" else "grid",
        period=told.period if told.sampling == "mean" else None,
        max_gap=told.max_gap,
        train_end=1,  # nothing is learned from it
        anomalies_in_train="allow",
    )
    series, online = read_series(path, options), Online(module)
    start = time.perf_counter()
    for row, x in enumerate(series.values):
        if speed is not None:
            due = start + row * series.period / speed
            time.sleep(max(0.0, due - time.perf_counter()))
        arrived = time.perf_counter()
        verdict = online.update(x)
        yield Replayed(row, verdict, time.perf_counter() - arrived)


def latencies(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds a point: the median, the 99th percentile and the longest."""
    found = np.array(seconds) * 1e3
    middle, high = np.quantile(found, [0.5, 0.99])
    return {"median_ms": float(middle), "p99_ms": float(high), "max_ms": float(found.max())}


def main(arguments: Sequence[str]) -> int:
    """The command line: alarms as they come, then latencies. 2 for wrong input."""
    from renshu.cli.trained import Arguments
    from renshu_tasks.anomaly import task

    parser = Arguments("replay", "A file as if its points arrived now, with a verdict for each.")
    parser.prog = "python -m renshu_tasks.anomaly.replay"
    parser.add_argument("file", metavar="FILE", help="a series; each point is a row of it")
    parser.add_argument("--speed", type=float, help="60 makes a minute a second; default: no wait")
    try:
        asked, changes = parser.parse_known_args(arguments)
        if asked.speed is not None and not asked.speed > 0:
            raise ConfigError(f"{asked.speed:g} is no speed", where="--speed", allowed="above 0")
        found = parser.find(asked, changes)
        kind = task.load("module_class")
        module = found.place(kind.load_from_checkpoint(found.checkpoint)).eval()
        return _tell(replay(module, asked.file, asked.speed))
    except RenshuError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code


def _tell(points: Iterator[Replayed]) -> int:
    seconds, alarms, on = [], 0, False
    for point in points:
        seconds.append(point.seconds)
        score, threshold, alarm = point.verdict.score, point.verdict.threshold, point.verdict.alarm
        if alarm != on:
            word = "alarm" if alarm else "quiet"
            line = f"point {point.row}: {word}, score {score:.4g}, threshold {threshold:.4g}\n"
            sys.stdout.write(line)
            sys.stdout.flush()
        alarms += alarm and not on
        on = alarm
    told = ", ".join(f"{name} {value:.3g}" for name, value in latencies(seconds).items())
    sys.stdout.write(f"{len(seconds)} points, {alarms} alarms; latency a point: {told}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
