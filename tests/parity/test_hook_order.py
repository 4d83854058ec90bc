"""Hooks are called in the order recorded from Lightning, which is still Lightning's."""

from __future__ import annotations

import json

import pytest
from compare import assert_same_calls, lightning
from hook_order import FILE, RUNS, calls

import renshu

RECORDED = json.loads(FILE.read_text())


# capabilities B5
def test_every_run_is_recorded() -> None:
    assert [*RECORDED] == ["version", *RUNS]
    assert lightning.__version__.startswith("2.6")


@pytest.mark.parametrize("name", RUNS)
def test_lightning_still_calls_in_the_recorded_order(name: str) -> None:
    assert_same_calls(calls(lightning, name), RECORDED[name])


@pytest.mark.parametrize("name", RUNS)
def test_renshu_calls_in_the_recorded_order(name: str) -> None:
    assert_same_calls(calls(renshu, name), RECORDED[name])
