"""The options of anomaly detection. Imports neither torch nor numpy: --help answers at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from renshu_tasks.common.options import check


@dataclass(kw_only=True)
class DataOptions:
    """Where the series comes from, which part is normal, and what holds for gaps.

    Attributes:
        path: .csv, .txt or .parquet file, or a folder of train/, test/ and test_label/ (as SMD);
            without it an embedded real series.
        format: csv: a table with a head; nab: time stamp and value, labels in windows; tsb_ad:
            names end in _tr_N_1st_M; ucr: names end in _N_FIRST_LAST; smd: three folders of texts;
            auto: by name and content.
        series: which series of a folder, or of the embedded ones.
        windows: NAB's JSON of labelled windows; default: combined_windows.json beside or above,
            or in labels/ there.
        time_column: column of the time stamps; default: timestamp, time, date or datetime.
        columns: columns of the values; default: all others.
        label_column: column of 0 and 1; default: label, anomaly or is_anomaly, if there is one.
        train_end: rows at the beginning that are mostly normal, learned from. Default: what the
            file's name says, NAB's 15 %, half of other files.
        val_share: share of these rows, their end, held out: for the epoch, the threshold, p-values.
        sampling: grid: time stamps ascend by one period, missing rows are gaps; rows: every row is
            the next point, whatever its time stamp says; auto: rows for NAB, else grid.
        period: seconds between points; given, time stamps that do not keep it are averaged over it.
        max_gap: gaps of up to so many points hold the value before them; longer ones are refused.
        anomalies_in_train: fail, or allow labelled anomalies in the training part.
        max_values: largest series that is read, in values (points × channels).
        batch_size: windows a step of neural detectors; default: the table for this device.
    """

    path: str | None = None
    format: Literal["auto", "csv", "nab", "tsb_ad", "ucr", "smd"] = "auto"
    series: str | None = None
    windows: str | None = None
    time_column: str | None = None
    columns: list[str] | None = None
    label_column: str | None = None
    train_end: int | None = None
    val_share: float = 0.2
    sampling: Literal["auto", "grid", "rows"] = "auto"
    period: float | None = None
    max_gap: int = 10
    anomalies_in_train: Literal["fail", "allow"] = "fail"
    max_values: int = 50_000_000
    batch_size: int | None = None

    def __post_init__(self) -> None:
        above, counts = (1e-9, math.inf), (1, math.inf)
        check(
            self,
            "data",
            {
                "train_end": counts,
                "val_share": (0.01, 0.9),
                "period": above,
                "max_gap": (0, math.inf),
                "max_values": counts,
                "batch_size": counts,
            },
        )


@dataclass(kw_only=True)
class ModelOptions:
    """Which detector. What is not given is the detector's own default.

    Attributes:
        name: random, constant, difference, zscore (baselines); sub_pca, residual_pca, sub_knn,
            kmeans, iforest, lof, matrix_profile, poly, spectral_residual; cnn, lstm, autoencoder,
            usad (networks).
        window: points that it looks at; default: the period of the training part, else 100.
        neighbours: of sub_knn, matrix_profile and lof.
        clusters: of kmeans.
        trees: of iforest.
        power: degree of poly's polynomial.
        explained: share of the variance that residual_pca keeps.
    """

    name: str = "residual_pca"
    window: int | None = None
    neighbours: int | None = None
    clusters: int | None = None
    trees: int | None = None
    power: int | None = None
    explained: float | None = None

    def __post_init__(self) -> None:
        names = ("window", "neighbours", "clusters", "trees")
        ranges: dict[str, tuple[float, float]] = dict.fromkeys(names, (1, math.inf))
        check(self, "model", ranges | {"power": (0, 10), "explained": (0.01, 0.9999)})

    def parameters(self) -> dict[str, Any]:
        """What was given, for `detectors.make`."""
        return {
            name: value
            for name, value in vars(self).items()
            if name != "name" and value is not None
        }


@dataclass(kw_only=True)
class TrainingOptions:
    """How networks learn, and how the threshold is chosen on the held-out normal points.

    Attributes:
        learning_rate: of networks at the start; default: the detector's.
        patience: epochs without improvement until networks stop.
        threshold: conformal: the quantile of the held-out scores; spot: extreme-value theory, for
            budgets that the held-out points are too few to show; dspot: the same with drift.
        false_alarms: the budget: share of normal points that may be above the threshold.
        release: an alarm ends when the score falls below this share of the threshold.
        hold: and stays so for so many points; alarms closer than that are one.
        threads: processor threads of torch; default: the table for this device.
    """

    learning_rate: float | None = None
    patience: int = 3
    threshold: Literal["conformal", "spot", "dspot"] = "conformal"
    false_alarms: float = 0.001
    release: float = 1.0
    hold: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        check(
            self,
            "training",
            {
                "learning_rate": (1e-12, 10),
                "patience": (1, math.inf),
                "false_alarms": (1e-9, 0.5),
                "release": (0, 1),
                "hold": (0, math.inf),
                "threads": (1, 4096),
            },
        )


@dataclass(kw_only=True)
class AnomalyOptions:
    """Everything that anomaly detection can be told.

    Attributes:
        data: where the series comes from, which part is normal.
        model: which detector.
        training: how it learns, how the threshold is chosen.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
