"""What the reports of several tasks show alike: which evaluation, calibration, abstention."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from renshu.errors import DataError
from renshu.report import Chart, Section, Table
from renshu.report.charts import lines

BINS = 15
"""Of the reliability diagram and its calibration error, as in Guo et al. 2017."""

SHARE = {"range": [-0.02, 1.02], "tickformat": ".0%"}
"""Layout of an axis of shares."""

Bins = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Mean confidence, share right and number of decisions in each of BINS equal bins (a, b]."""


def evaluated(run_dir: Path) -> Path | None:
    """The folder of a run's evaluation: of the test part, else of validation; None without any."""
    folders = [Path(run_dir) / "evaluation" / split for split in ("test", "val")]
    return next((folder for folder in folders if (folder / "metrics.json").is_file()), None)


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """A file of `folder` that is missing, torn, or of another version raises DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"the evaluation cannot be shown: {type(error).__name__}: {error}",
            where=folder,
            mend="renshu evaluate writes it again",
        ) from error


def activated(logits: np.ndarray, several: bool) -> np.ndarray:
    """Probabilities [N, K] of logits as they are; each class by itself if there are `several`."""
    logits = logits.astype(np.float64)
    if several:
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def decided(probabilities: np.ndarray, thresholds: Sequence[float], several: bool) -> np.ndarray:
    """The decisions: class int64 [N], or bool [N, K] when there may be several."""
    if several:
        return probabilities >= np.array(thresholds)
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= thresholds[1]).astype(np.int64)
    return probabilities.argmax(1)


def binned(confidence: np.ndarray, right: np.ndarray) -> Bins:
    """Decisions [N], how sure they are and whether they are right, by bins of confidence."""
    place = np.clip(np.ceil(confidence * BINS).astype(int), 1, BINS) - 1
    counts = np.bincount(place, minlength=BINS)
    some = np.maximum(counts, 1)
    mean, share = (np.bincount(place, each, BINS) / some for each in (confidence, right))
    return mean, share, counts


def calibration_error(bins: Bins) -> float:
    """Guo et al. 2017: the mean distance of a decision's bin from the ideal line."""
    confidence, right, counts = bins
    return float((np.abs(right - confidence) * counts).sum() / counts.sum())


def curve(name: str, bins: Bins) -> tuple[str, tuple[list[float], list[float]]]:
    """A line of `reliability`: its name with the calibration error, and its points."""
    confidence, right, counts = bins
    points = confidence[counts > 0].tolist(), right[counts > 0].tolist()
    return f"{name}: error {calibration_error(bins):.3f}", points


def reliability(title: str, curves: Mapping[str, tuple[list[float], list[float]]]) -> Chart:
    """How often decisions of each confidence are right; on the dotted line they should be."""
    return lines(
        title,
        curves,
        x="confidence",
        layout={
            "xaxis": SHARE | {"title": {"text": "confidence"}},
            "yaxis": SHARE | {"title": {"text": "share that is right"}},
        },
        diagonal=True,
    )


def risk_by_coverage(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """The error of those that are decided, the surest first."""
    return lines(
        "Error among the answered",
        {"error": ([row["coverage"] for row in rows], [row["risk"] for row in rows])},
        x="share answered",
        layout={
            "xaxis": SHARE | {"title": {"text": "share answered"}},
            "yaxis": {"tickformat": ".1~%", "rangemode": "tozero", "title": {"text": "error"}},
        },
    )


def abstention(rows: Sequence[Mapping[str, Any]], samples: str) -> Section:
    """What the error becomes if only the surest `samples` are decided."""
    chart = risk_by_coverage(rows)
    table = [
        [f"{row['coverage']:.0%}", f"{row['risk']:.2%}", f"{row['confidence']:.4f}"]
        for row in reversed(rows)
        if round(100 * row["coverage"]) in (100, 95, 90, 80, 70, 60, 50)
    ]
    return Section(
        "Abstention",
        [chart, Table("Answer only when sure", ["answered", "error", "confidence from"], table)],
        lead=f"What the error becomes if the least confident {samples} are left to a person.",
    )
