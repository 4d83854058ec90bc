"""Parts: by patient, with every class, the same for the same seed, always with a validation."""

from __future__ import annotations

import pytest

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.records import Record
from renshu_tasks.segmentation.splits import split


def cases(count: int, patients: int) -> list[Record]:
    return [Record(f"c{n}", patient=f"p{n % patients}") for n in range(count)]


def cut(records: list[Record], shown: object = None, **options: object) -> dict[str, list[int]]:
    shown = shown or [frozenset({1})] * len(records)
    return split(records, shown, DataOptions(**options), "data")  # type: ignore[arg-type]


def test_no_patient_is_in_two_parts_and_no_case_is_lost() -> None:
    # pains/medical.md row 36
    records = cases(60, 20)
    found = cut(records)
    assert sorted(row for rows in found.values() for row in rows) == list(range(60))
    patients = {part: {records[row].patient for row in rows} for part, rows in found.items()}
    assert [len(patients[part]) for part in ("train", "val", "test")] == [14, 2, 4]
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & (patients["train"] | patients["test"])


def test_a_rare_class_reaches_every_part() -> None:
    # pains/medical.md row 18
    shown = [frozenset({1, 2}) if n % 10 < 2 else frozenset({1}) for n in range(50)]
    for part in cut(cases(50, 50), shown, test_share=0.2, val_share=0.25).values():
        assert any(2 in shown[row] for row in part)


def test_folds_leave_out_every_case_once() -> None:
    left = [cut(cases(23, 23), folds=5, fold=fold) for fold in range(5)]
    assert sorted(row for found in left for row in found["test"]) == list(range(23))
    assert all(found["val"] for found in left)


def test_the_seed_alone_decides() -> None:
    assert cut(cases(30, 30)) == cut(cases(30, 30))
    assert cut(cases(30, 30)) != cut(cases(30, 30), split_seed=1)


def test_contradictions_and_too_few_patients_are_refused() -> None:
    with pytest.raises(ConfigError, match="test_share cannot be kept"):
        cut(cases(9, 9), test_share=0.5, folds=3)
    with pytest.raises(DataError, match="1 patients cannot be cut"):
        cut(cases(9, 1))
    with pytest.raises(DataError, match="'x' is in"):
        cut([Record("a", patient="x", part="test"), *(Record(c, patient=c) for c in "xyz")])
