"""One job: a detector on a series with a seed. It runs alone, in any process, at any time."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from renshu.errors import DataError
from renshu_tasks.anomaly.bench.figures import FIGURES, figures
from renshu_tasks.anomaly.bench.log import Row
from renshu_tasks.anomaly.bench.sources import Source
from renshu_tasks.anomaly.bench.stored import (
    array_digest,
    labels_digest,
    write_scores,
    write_series,
)
from renshu_tasks.anomaly.detector import Detector, Scores
from renshu_tasks.anomaly.detectors import detector_class, make
from renshu_tasks.anomaly.metrics.window import metric_window
from renshu_tasks.anomaly.prequential import prequential
from renshu_tasks.anomaly.series import Series
from renshu_tasks.anomaly.thresholds import conformal_threshold

HELD_OUT = 0.2
"""Share of the training part, its end, on which the threshold is chosen."""

OWN_WINDOW = ("usad", "spectral_residual")
"""Detectors that are defined with a window of their own; others get the period."""


CODE, SCORES = "code", "scores"
"""What stands behind a row: code that was run here, or no more than scores that were handed in."""


@dataclass(frozen=True)
class Job:
    """What is run, and under what it is known.

    Attributes:
        source: the series.
        detector: a name of detectors.DETECTORS.
        seed: 0 for detectors that draw nothing.
        mode: of VUS.
        budget: share of normal points that may be alarmed, for the threshold.
        retrain: points after which the detector is fitted again; 0: never, and it may look ahead.
        folder: where the benchmark keeps its files.
        code: digest of the task's source files.
        commit: of the repository, or the version.
    """

    source: Source
    detector: str
    seed: int
    mode: str
    budget: float
    retrain: int
    folder: str
    code: str
    commit: str

    @cached_property
    def key(self) -> str:
        """The same for the same series, labels, detector, seed, settings and code."""
        data = (self.source.name, self.source.stamp, self.source.part)
        parts = (data, self.detector, self.seed, self.mode, self.budget, self.retrain, self.code)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:20]

    def row(self) -> Row:
        """What is known of the job before it runs."""
        return {
            "key": self.key,
            "series": self.source.name,
            "stamp": self.source.stamp,
            "group": self.source.group,
            "part": self.source.part,
            "detector": self.detector,
            "seed": self.seed,
            "mode": self.mode,
            "budget": self.budget,
            "retrain": self.retrain,
            "evidence": CODE,
            "commit": self.commit,
            "code": self.code,
            "reason": None,
            "unusable": False,
            **dict.fromkeys(FIGURES),
        }


def run_job(job: Job) -> Row:
    """Fit, score and measure; the scores are kept beside. Returns the row.

    A series that no detector can be measured on gives a row that says so. Raises what the detector
    raises: the pool makes a row of it.
    """
    folder = Path(job.folder)
    try:
        series = _load(job.source)
    except DataError as error:
        return job.row() | {"reason": error.what, "unusable": True}
    found = job.row() | _outline(series)
    write_series(folder, found, series)
    detector = _detector(job, series)
    start = time.perf_counter()
    scores, threshold = _scores(detector, series, job.budget)
    if job.retrain and series.train_end:
        make_one, end = lambda: _detector(job, series), series.train_end
        scores = prequential(make_one, series.values, end, job.retrain)
    seconds = time.perf_counter() - start
    found |= {
        "parameters": detector.parameters(),
        "threshold": threshold,
        "seconds": seconds,
        "points_a_second": len(series) / seconds,
        "scores": array_digest(scores),
    }
    found |= measure(found, scores, series)
    write_scores(folder, job.key, scores, found)
    return found


def measure(row: Row, scores: Scores, series: Series) -> dict[str, float | None]:
    """The figures of a row from its scores, which are those behind the training part."""
    assert series.labels is not None
    return figures(
        series.labels[series.train_end :] == 1,
        scores,
        threshold=row["threshold"],
        window=row["window"],
        mode=row["mode"],
        period=series.period,
    )


def seeded(detector: str) -> bool:
    """Whether a detector draws random numbers: only then are more seeds more runs."""
    return "seed" in _fields(detector)


@lru_cache(maxsize=2)
def _load(source: Source) -> Series:
    """The jobs of a series come one after the other, so that it is read once a process."""
    series = source.load()
    if series.labels is None:
        raise DataError("the series has no labels: nothing can be measured", where=series.source)
    scored = series.labels[series.train_end :]
    if not scored.any() or scored.all():
        raise DataError(
            f"all labels behind the training part are {int(scored.any())}",
            where=f"{series.source}, rows {series.train_end} to {len(series) - 1}",
            allowed="at least one anomalous and one normal point to be scored",
        )
    return series


def _outline(series: Series) -> dict[str, Any]:
    """What a row says of its series; the window of the metric is the period of the series."""
    window = metric_window(series.train if series.train_end else series.values)
    labels = np.asarray(series.labels)[series.train_end :]
    return {
        "origin": series.origin,
        "protocol": "normal training part" if series.train_end else "no training part",
        "points": len(labels),
        "events": len(series.part(series.train_end, len(series)).events),
        "channels": len(series.channels),
        "window": window.points,
        "window_rule": window.rule,
        "labels": labels_digest(series),
    }


def _detector(job: Job, series: Series) -> Detector:
    given: dict[str, Any] = {}
    known = _fields(job.detector)
    if "window" in known and job.detector not in OWN_WINDOW:
        given["window"] = metric_window(series.train if series.train_end else series.values).points
    if "seed" in known:
        given["seed"] = job.seed
    return make(job.detector, given)


def _fields(detector: str) -> set[str]:
    return {field.name for field in dataclasses.fields(detector_class(detector)) if field.init}


def _scores(detector: Detector, series: Series, budget: float) -> tuple[Scores, float | None]:
    """Scores of what is scored, and the threshold, chosen on held-out normal points alone.

    Without a training part the detector learns from what it scores, without labels, and there is
    no normal part that a threshold could be chosen on.
    """
    if not series.train_end:
        return detector.fit_score(series.values), None
    cut = series.train_end - int(np.ceil(HELD_OUT * series.train_end))
    detector.fit(series.train[:cut])
    held_out = detector.score(series.train)[cut:]
    return detector.score(series.values)[series.train_end :], conformal_threshold(held_out, budget)


def failed(job: Job, reason: str | None) -> Row:
    """The row of a job that has no result."""
    return job.row() | {"reason": reason}
