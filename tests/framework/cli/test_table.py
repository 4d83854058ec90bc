"""The table of predictions: safe in a spreadsheet, never half there, constant in memory."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from renshu.cli.table import TableWriter, read_table
from renshu.errors import DataError


def write(path: Path, *rows: dict[str, object]) -> list[list[str]]:
    with TableWriter(path) as table:
        for row in rows:
            table.write(row)
    with path.open(newline="") as file:
        return list(csv.reader(file))


# pains/security.md row 32
@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "'"])
def test_text_that_a_spreadsheet_would_run_is_marked_and_read_back(start: str):
    text = f'{start}HYPERLINK("x"), 1'
    cells = write(Path("t.csv"), {f"{start}id": text, "value": 1.0})
    assert cells == [[f"'{start}id", "value"], [f"'{text}", "1.0"]]
    assert list(read_table(Path("t.csv"))) == [{f"{start}id": text, "value": "1.0"}]


# pains/security.md row 32: numbers are no formulas.
def test_negative_numbers_stay_numbers():
    row = {"a": -1, "b": -0.5, "c": np.float64(-0.25), "d": float("-inf"), "e": True, "f": None}
    assert write(Path("t.csv"), row)[1] == ["-1", "-0.5", "-0.25", "-inf", "True", ""]


@given(st.lists(st.fixed_dictionaries({"a": st.text(), "b": st.text()}), min_size=1))
def test_any_text_is_read_back(rows: list[dict[str, object]]):
    write(Path("any.csv"), *rows)
    assert list(read_table(Path("any.csv"))) == rows


def test_a_failure_leaves_the_old_table_and_no_rest(tmp_path: Path):
    target = tmp_path / "t.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), TableWriter(target) as table:
        table.write({"a": 1})
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_row_with_other_columns_is_refused():
    with pytest.raises(DataError, match="row 2"), TableWriter(Path("t.csv")) as table:
        table.write({"a": 1})
        table.write({"b": 1})
    assert not Path("t.csv").exists()


# pains/trainer.md row 40: constant memory.
def test_memory_does_not_grow_with_the_rows():
    def peak(rows: int) -> int:
        tracemalloc.start()
        with TableWriter(Path("t.csv")) as table:
            for number in range(rows):
                table.write({"id": f"file {number}", "value": number / 7})
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(10)
    assert peak(20_000) < peak(500) + 50_000
