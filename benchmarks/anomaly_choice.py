"""The anomaly task's default detector and its demo's network beside what else could be chosen.

They are judged on tuning series alone: the planted ones of a sensor that no other benchmark looks
at, and those of NAB and UCR that `renshu bench anomaly` keeps for tuning. NAB and UCR are read from
RENSHU_SHARED_DATA (default: ../shared/data); without them, and with --quick, the rows come from the
last full run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import _table
from renshu.errors import DataError
from renshu_tasks.anomaly import task
from renshu_tasks.anomaly.bench.sources import embedded, folder
from renshu_tasks.anomaly.detectors import DETECTORS, NEURAL, TRIVIAL, detector_class, make
from renshu_tasks.anomaly.metrics.volume import vus
from renshu_tasks.anomaly.metrics.window import metric_window
from renshu_tasks.anomaly.options import ModelOptions
from renshu_tasks.anomaly.series import Series

SHARED = Path(os.environ.get("RENSHU_SHARED_DATA", _table.ROOT.parent / "shared" / "data"))
DEMO = task.presets["demo"]
CHOSEN = ModelOptions().name
NETWORK = f"{DEMO['model.name']} with window {DEMO['model.window']}"
BEST = "mean VUS-PR on tuning series, beside the best other choice: "
ROWS = f"{BEST}the default detector, {CHOSEN}", f"{BEST}the demo's network, {NETWORK}"
WINDOWS = (20, 50)


def tuning_series() -> list[Series]:
    """All that are for tuning and have events behind a training part."""
    sources = [*embedded(), *folder(SHARED / "nab"), *folder(SHARED / "ucr")]
    series = [source.load() for source in sources if source.part == "tuning"]
    return [one for one in series if one.part(one.train_end, len(one)).events]


def mean_value(series: list[Series], name: str, given: Mapping[str, Any]) -> float:
    """Mean VUS-PR behind the training parts; 0 on a series that is too short for the detector."""
    found = []
    for one in series:
        period = metric_window(one.train).points
        try:
            detector = make(name, {"window": period} | given).fit(one.train)
            scores = detector.score(one.values)[one.train_end :]
        except DataError:
            found.append(0.0)
            continue
        assert one.labels is not None
        found.append(vus(one.labels[one.train_end :] == 1, scores, period).pr)
    return float(np.mean(found))


def beside(what: str, chosen: str, values: dict[str, float], count: int) -> _table.Row:
    """The value of the choice beside that of the best other."""
    others = {name: value for name, value in values.items() if name != chosen}
    best = max(others, key=others.__getitem__)
    ordered = sorted(others.items(), key=lambda item: -item[1])
    listed = ", ".join(f"{name} {value:.3f}" for name, value in ordered)
    return _table.Row(what, "", values[chosen], others[best], best, ">= peer",
        spread=f"{count} series; {listed}")  # fmt: skip


def measure(quick: bool) -> Iterable[_table.Row]:
    """Both rows. A default has to take several channels and to learn in seconds."""
    if quick or not (SHARED / "nab").is_dir():
        yield from (_table.stored(__file__, what, "", ">= peer") for what in ROWS)
        return
    torch.set_num_threads(1)
    series = tuning_series()
    able = [name for name in DETECTORS if name not in (*TRIVIAL, *NEURAL)]
    able = [name for name in able if detector_class(name).multivariate]
    classical = {name: mean_value(series, name, {}) for name in able}
    yield beside(ROWS[0], CHOSEN, classical, len(series))
    epochs = DEMO["trainer.max_epochs"]
    networks = {
        f"{name} with window {window}": mean_value(
            series, name, {"window": window, "epochs": epochs}
        )
        for name in NEURAL
        for window in WINDOWS
    }
    yield beside(ROWS[1], NETWORK, networks, len(series))


if __name__ == "__main__":
    _table.main(__file__, measure)
