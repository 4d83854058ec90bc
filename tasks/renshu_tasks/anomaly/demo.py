"""Real labelled series that ship inside Python packages; nothing is imported to find them.

internal_bleeding: arterial blood pressure of a pig with one anomalous beat, no. 135 of the UCR
archive (Wu and Keogh 2021), from aeon. uni_ds: hourly load with three events, from streamad.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from renshu.errors import unknown
from renshu_tasks.anomaly.formats import read_table
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.series import Series
from renshu_tasks.common.packaged import checked, packaged

DEFAULT = "internal_bleeding"

_FILES = {
    "internal_bleeding": (
        "aeon",
        "datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16_TEST.csv",
        "fe26577b94896943e8205d04d56bf2511fe05c008df535a1ec3826adff3597e2",
        1200,
    ),
    "uni_ds": (
        "streamad",
        "util/data/uniDS.csv",
        "cf62c320b6107219bfcef760229e6e4c59b88cffb3ec04dd0f0d9e2ff9a0d3eb",
        499,
    ),
}
"""Package, file, SHA-256, and the rows of the training part."""

NAMES = tuple(_FILES)


def demo_file(name: str = DEFAULT) -> Path:
    """Where a package keeps a series. Raises DataError without it, ConfigError for other names."""
    if name not in _FILES:
        raise unknown("embedded series", name, NAMES, where="data.series")
    package, inside, _, _ = _FILES[name]
    return packaged(
        package,
        inside,
        f"the embedded series {name} comes with {package}, which is not installed",
        'pip install "renshu[demo]", or give a file of your own with --data.path',
    )


def load_demo(name: str = DEFAULT, file: Path | None = None) -> Series:
    """An embedded series. Raises DataError if its file is not the one that was checked."""
    file = file or demo_file(name)
    package, _, sha256, train_end = _FILES[name]
    said = f"the embedded series {name} is not the file that was checked"
    checked(file, sha256, said, f"pip install --force-reinstall {package}")
    series = read_table(file, DataOptions())
    return replace(series, name=name, train_end=train_end, source=f"{package}: {file.name}")
