"""Writes fixtures/tsb_ad_1_5.json: scores of TSB-AD 1.5's own detectors on one seeded series.

    pip download --no-deps TSB-AD==1.5 && unzip TSB_AD-1.5-py3-none-any.whl -d FOLDER
    python make_tsb_ad_scores.py FOLDER

TSB-AD pins numpy below 2, so it cannot be installed beside renshu. Its detectors run without what
it imports besides them: those modules are replaced by empty ones.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

UNUSED = {
    "statsmodels": [],
    "statsmodels.tsa": [],
    "statsmodels.tsa.seasonal": ["seasonal_decompose"],
    "statsmodels.tsa.ar_model": ["AR"],
    "hurst": ["compute_Hc"],
    "arch": ["arch_model"],
}
WINDOW = 40


def series() -> np.ndarray:
    """float64 [1000, 1]: a noisy wave with a jump and a flat stretch."""
    time = np.arange(1000)
    values = np.sin(time * 2 * np.pi / 40) + 0.05 * np.random.default_rng(7).normal(size=1000)
    values[600:606] += 1.5
    values[800:840] = 0.2 + 0.01 * np.arange(40)
    return values[:, None]


def scores(name: str, x: np.ndarray) -> np.ndarray:
    """The scores of a detector of TSB-AD by renshu's name, fitted on the series itself."""
    from TSB_AD.models import KNN, LOF, PCA, POLY, SR, IForest, KMeansAD

    if name == "spectral_residual":
        return SR.SR(x, WINDOW)
    if name == "kmeans":
        kmeans = KMeansAD.KMeansAD(k=20, window_size=WINDOW, stride=1)
        kmeans.model.random_state, kmeans.model.n_init = 0, 1
        return kmeans.fit_predict(x)
    found: Any = {
        "sub_pca": lambda: PCA.PCA(slidingWindow=WINDOW),
        "sub_knn": lambda: KNN.KNN(slidingWindow=WINDOW, n_neighbors=10, method="largest"),
        "iforest": lambda: IForest.IForest(slidingWindow=WINDOW, n_estimators=100, max_features=1),
        "lof": lambda: LOF.LOF(slidingWindow=WINDOW, n_neighbors=30),
        "poly": lambda: POLY.POLY(power=3, window=WINDOW),
    }[name]()
    return found.fit(x).decision_scores_


def main() -> None:
    """Write the file beside this script."""
    sys.path.insert(0, sys.argv[1])
    for name, unused in UNUSED.items():
        module = ModuleType(name)
        for attribute in unused:
            setattr(module, attribute, None)
        sys.modules[name] = module
    found = {}
    names = ("sub_pca", "sub_knn", "kmeans", "iforest", "lof", "poly", "spectral_residual")
    for name in names:
        with contextlib.redirect_stdout(io.StringIO()):
            values = np.ravel(scores(name, series()))
        found[name] = [float(f"{value:.13g}") for value in values]
    file = Path(__file__).parent / "fixtures" / "tsb_ad_1_5.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
