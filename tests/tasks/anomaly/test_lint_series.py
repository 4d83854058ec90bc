"""The linter: each flaw is found where it was put, and a sound series has none."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from renshu_tasks.anomaly.lint import lint
from renshu_tasks.anomaly.series import Series

DATA = Path(os.environ.get("RENSHU_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))


def sound(points: int = 3000) -> Series:
    """A noisy wave with two stretches mirrored: no single line tells them from the rest."""
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(points) / 8) * (1 + 0.3 * np.sin(np.arange(points) / 371))
    values += 0.1 * rng.standard_normal(points)
    labels = np.zeros(points, dtype=np.uint8)
    for start in (1500, 2200):
        labels[start : start + 40] = 1
        values[start : start + 40] = values[start : start + 40][::-1].copy()
    return Series("wave", values[:, None], labels, train_end=1000)


def codes(series: Series) -> set[str]:
    return {finding.code for finding in lint(series)}


def changed(series: Series, start: int, values: object) -> Series:
    new = series.values.copy()
    part = np.asarray(values, dtype=float)
    new[start : start + len(part), 0] = part
    return replace(series, values=new)


def test_a_sound_series_has_no_flaw() -> None:
    assert lint(sound()) == []


def test_labels_all_alike_are_fatal() -> None:
    for value in (0, 1):
        labels = np.full(3000, value, dtype=np.uint8)
        found = lint(replace(sound(), labels=labels))
        assert [(finding.code, finding.fatal) for finding in found] == [("labels_alike", True)]
    assert lint(replace(sound(), labels=None))[0].code == "no_labels"


def test_anomalies_in_the_training_part() -> None:
    # pains/anomaly.md row 12
    labels = sound().labels.copy()
    labels[500:510] = 1
    found = next(f for f in lint(replace(sound(), labels=labels)) if "training" in f.code)
    assert found.rows == (500, 509)


def test_density_and_events_at_the_end() -> None:
    # pains/anomaly.md row 4
    labels = np.zeros(3000, dtype=np.uint8)
    labels[1200:1700] = 1
    assert "dense" in codes(replace(sound(), labels=labels))
    labels = np.zeros(3000, dtype=np.uint8)
    labels[2900:2910] = 1
    assert "at_the_end" in codes(replace(sound(), labels=labels))


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (np.full(40, 5.0), "x >"),
        (np.full(40, -5.0), "-x >"),
        (np.tile([0.6, -0.6], 20), "|diff(x)| >"),
    ],
)
def test_series_that_one_line_solves(event: np.ndarray, line: str) -> None:
    series = changed(changed(sound(), 1500, event), 2200, event)
    found = next(f for f in lint(series) if f.code == "one_liner")
    assert found.what.startswith(line)


def test_a_sensor_that_hangs_is_one_line_too() -> None:
    series = sound()
    for start in (1500, 2200):
        series = changed(series, start, np.full(40, series.values[start - 1, 0]))
    found = next(f for f in lint(series) if f.code == "one_liner")
    assert found.what.startswith("-movstd(x, 5) >")


def test_a_training_part_that_comes_again_in_what_is_scored() -> None:
    series = sound()
    copied = changed(series, 1700, series.values[300:800, 0])
    assert "training_in_test" in codes(copied)


def test_an_event_whose_copy_is_not_labelled() -> None:
    series = sound()
    copied = changed(series, 1900, series.values[1500:1540, 0])
    found = next(f for f in lint(copied) if f.code == "label_errata")
    assert found.rows == (1500, 1539)
    assert "row 1900" in found.what


def test_a_label_beside_the_change_that_it_means() -> None:
    # pains/anomaly.md row 29
    found = next(f for f in lint(changed(sound(), 1485, [9.0])) if f.code == "label_misplaced")
    assert found.rows[0] in (1485, 1486)


def test_constant_huge_and_short_series() -> None:
    constant = replace(sound(), values=np.ones((3000, 1)))
    assert "constant" in codes(constant)
    huge = next(f for f in lint(changed(sound(), 2500, [1e308])) if f.code == "huge")
    assert huge.fatal
    assert huge.rows == (2500, 2500)
    short = Series("short", np.arange(60.0)[:, None], np.eye(1, 60, 55, dtype=np.uint8)[0], 40)
    assert "shorter_than_window" in codes(short)


def test_what_the_archives_are_known_for() -> None:
    """Wu and Keogh: UCR's series of this family fall to one line; NAB's labels are dense."""
    if not (DATA / "nab").is_dir():
        pytest.skip(f"no {DATA / 'nab'}")
    from renshu_tasks.anomaly.bench import sources

    found = {source.name: codes(source.load()) for source in sources.folder(DATA / "ucr")}
    assert len(found) == 4
    assert all("one_liner" in flaws for flaws in found.values())
    nab = [source for source in sources.folder(DATA / "nab") if "realAWS" in source.name]
    dense = ["dense" in codes(source.load()) for source in nab[:6]]
    assert sum(dense) >= 5
