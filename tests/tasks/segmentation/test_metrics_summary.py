"""Means over cases: what they count, whom the interval resamples."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="needs the medical extra")

from renshu_tasks.segmentation import metrics


def row(name: str, dice: float | None, state: str = "present") -> dict[str, Any]:
    return {"class": name, "state": state} | dict.fromkeys(metrics.FIGURES, dice)


def cases(values: list[float]) -> list[list[dict[str, Any]]]:
    return [[row("a", value)] for value in values]


def test_the_mean_is_over_classes_of_means_over_cases() -> None:
    found = metrics.summarise(
        [
            [row("a", 0.5), row("b", 1.0)],
            [row("a", 0.7), row("b", None, "absent")],
            [row("a", 0.0, "missed")],  # nobody looked for b
        ],
        ["1", "2", "3"],
    )
    assert found["cases"] == 3
    assert found["dice"]["value"] == pytest.approx((0.4 + 1.0) / 2)
    counts = {"used": 4, "absent": 1, "missed": 1, "invented": 0}
    assert found["dice"] | counts == found["dice"]
    a, b = found["per_class"]
    assert (a["class"], a["dice"]["value"], a["dice"]["used"]) == ("a", pytest.approx(0.4), 3)
    assert (b["class"], b["dice"]["value"], b["dice"]["used"]) == ("b", 1.0, 1)
    json.dumps(found, allow_nan=False)


def test_a_class_absent_everywhere_has_no_mean() -> None:  # pains/medical.md rows 18, 20
    found = metrics.summarise([[row("a", 0.5), row("b", None, "absent")]] * 3, ["1", "2", "3"])
    assert found["per_class"][1]["dice"]["value"] is None
    assert found["per_class"][1]["dice"]["absent"] == 3
    assert found["dice"]["value"] == 0.5
    said = metrics.in_words(found["per_class"][1]["dice"])
    assert said == "– (95 %: – to –; 0 used, 3 absent, 0 missed, 0 invented)"


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        values = rng.normal(0.8, 0.05, 40).tolist()
        dice = metrics.summarise(cases(values), [str(i) for i in range(40)])["dice"]
        hits += dice["low"] <= 0.8 <= dice["high"]
    assert 88 <= hits <= 100


def test_patients_are_resampled_not_cases() -> None:
    """Ten cases of one patient that are all alike tell as much as one."""
    values = [0.6, 0.8, 0.7, 0.9, 0.5]
    one = metrics.summarise(cases(values), list("abcde"))["dice"]
    ten = metrics.summarise(
        cases([v for v in values for _ in range(10)]),
        list("a" * 10 + "b" * 10 + "c" * 10 + "d" * 10 + "e" * 10),
    )["dice"]
    naive = metrics.summarise(cases(values * 10), [str(i) for i in range(50)])["dice"]
    assert (ten["low"], ten["high"]) == pytest.approx((one["low"], one["high"]))
    assert naive["high"] - naive["low"] < 0.5 * (one["high"] - one["low"])


def test_one_patient_or_equal_values_have_no_interval() -> None:
    assert metrics.summarise(cases([0.5, 0.6]), ["a", "a"])["dice"]["low"] is None
    assert metrics.summarise(cases([1.0, 1.0]), ["a", "b"])["dice"]["high"] is None
    assert metrics.summarise([], [])["dice"]["value"] is None


def test_the_same_seed_gives_the_same_interval() -> None:
    values, names = [0.2, 0.6, 0.9], ["a", "b", "c"]
    first, again = (metrics.summarise(cases(values), names, seed=3) for _ in range(2))
    assert first == again
