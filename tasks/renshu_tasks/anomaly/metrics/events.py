"""Labels as events, and the checks that every metric shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from renshu.errors import DataError

Labels = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def runs(flags: Labels) -> tuple[Indices, Indices]:
    """First point of each stretch of True and the point after its last: int [events] each."""
    edges = np.diff(flags.view(np.int8), prepend=np.int8(0), append=np.int8(0))
    return np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)


def checked(labels: npt.ArrayLike, scores: npt.ArrayLike) -> tuple[Labels, Scores]:
    """Labels as bool [n] and scores as float64 [n]; raises DataError for what has no figure.

    There must be one finite score a point, and both anomalous and normal points.
    """
    truth, values = as_flags(labels, "labels"), np.asarray(scores, dtype=np.float64)
    if values.shape != truth.shape:
        raise DataError(
            f"{values.shape} scores for {truth.shape} labels", allowed="one score a point"
        )
    if not np.isfinite(values).all():
        place = int(np.flatnonzero(~np.isfinite(values))[0])
        raise DataError(
            f"the score is {values[place]}", where=f"point {place}", allowed="finite scores"
        )
    if truth.all() or not truth.any():
        raise DataError(
            f"all labels are {int(truth.all()) if len(truth) else 'missing'}",
            allowed="at least one anomalous and one normal point",
        )
    return truth, values


def checked_flags(labels: npt.ArrayLike, alarms: npt.ArrayLike) -> tuple[Labels, Labels]:
    """Labels and alarms as bool [n]; raises DataError where they differ in length or no event is.

    Alarms at no point or at all points are valid: they have a figure.
    """
    truth, raised = as_flags(labels, "labels"), as_flags(alarms, "alarms")
    if truth.shape != raised.shape:
        raise DataError(f"{len(raised)} alarms for {len(truth)} labels", allowed="one a point")
    if not truth.any():
        raise DataError("there is no anomaly in the labels", allowed="at least one event")
    return truth, raised


def as_flags(values: npt.ArrayLike, what: str) -> Labels:
    """One-dimensional bool [n] from bool, or from numbers that are all 0 or 1."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{what} of shape {array.shape}", allowed="one dimension")
    if array.dtype == np.bool_:
        return array
    flags = array == 1
    wrong = ~flags & (array != 0)
    if wrong.any():
        place = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{what}: {array[place]!r}", where=f"point {place}", allowed="0 or 1")
    return flags


def f1(precision: float, recall: float) -> float:
    """The harmonic mean; 0 where both are 0."""
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
