"""The detectors, one file each. Nothing is imported before its name is asked for."""

from __future__ import annotations

import dataclasses
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from renshu.errors import CheckpointError, ConfigError, unknown

if TYPE_CHECKING:
    from renshu_tasks.anomaly.detector import Detector, State

_HERE = "renshu_tasks.anomaly.detectors"

DETECTORS = {
    "random": "baselines:Random",
    "constant": "baselines:Constant",
    "difference": "baselines:Difference",
    "zscore": "baselines:MovingZScore",
    "sub_pca": "sub_pca:SubPCA",
    "residual_pca": "residual_pca:ResidualPCA",
    "sub_knn": "sub_knn:SubKNN",
    "kmeans": "kmeans:KMeansAD",
    "iforest": "iforest:IForest",
    "lof": "lof:LOF",
    "matrix_profile": "matrix_profile:MatrixProfile",
    "poly": "poly:Poly",
    "spectral_residual": "spectral_residual:SpectralResidual",
    "cnn": "cnn:CNN",
    "lstm": "lstm:LSTM",
    "autoencoder": "autoencoder:Autoencoder",
    "usad": "usad:USAD",
}
"""The word that users type, and the file and class behind it."""

TRIVIAL = ("random", "constant", "difference", "zscore")
"""Baselines: what does not beat them has learned nothing."""

NEURAL = ("cnn", "lstm", "autoencoder", "usad")
"""Networks, trained by renshu's Trainer."""


def detector_class(name: str) -> type[Detector]:
    """The class of a detector; raises ConfigError with the nearest name, or the missing package."""
    if name not in DETECTORS:
        raise unknown("detector", name, DETECTORS, where="model.name")
    try:
        return pkgutil.resolve_name(f"{_HERE}.{DETECTORS[name]}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{name} needs the package {error.name!r}, which is not installed",
            mend='pip install "renshu[anomaly]"',
        ) from error


def make(name: str, parameters: Mapping[str, Any] | None = None) -> Detector:
    """A detector that is not fitted yet; raises ConfigError for parameters it does not have."""
    kind, given = detector_class(name), dict(parameters or {})
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    for key in given:
        if key not in known:
            raise unknown("parameter", key, known, where=f"detector {name}")
    return kind(**given)


def restore(state: State) -> Detector:
    """The fitted detector of a state. Raises CheckpointError if it cannot be brought back."""
    try:
        return detector_class(state.name).from_state(state)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"the state of {state.name} cannot be used: {type(error).__name__}: {error}",
            mend="fit the detector again",
        ) from error
