"""The parts: the same every time, in proportion, groups together, validation always there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from renshu.errors import ConfigError, DataError
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.splits import split, strata_of

LABELS = st.lists(st.integers(12, 60), min_size=2, max_size=5).flatmap(
    lambda sizes: st.permutations([str(k) for k, size in enumerate(sizes) for _ in range(size)])
)


def _covers(parts: dict, count: int) -> bool:
    return sorted(np.concatenate(list(parts.values())).tolist()) == list(range(count))


@settings(max_examples=30, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**32 - 1))
def test_every_sample_is_in_one_part_and_classes_keep_their_share(labels: list[str], seed: int):
    parts = split(labels, DataOptions(split_seed=seed))
    assert _covers(parts, len(labels))
    expected = {"test": 0.2, "val": 0.8 * 0.15, "train": 0.8 * 0.85}
    for name, total in Counter(labels).items():
        for part, share in expected.items():
            found = sum(labels[row] == name for row in parts[part])
            assert abs(found - share * total) < 2.5, (name, part)


@settings(max_examples=20, deadline=None)
@given(labels=LABELS, seed=st.integers(0, 2**32 - 1), folds=st.integers(2, 6))
def test_folds_leave_every_sample_out_once(labels: list[str], seed: int, folds: int):
    several = [
        split(labels, DataOptions(folds=folds, fold=fold, split_seed=seed)) for fold in range(folds)
    ]
    assert all(_covers(parts, len(labels)) and len(parts["val"]) for parts in several)
    tested = np.concatenate([parts["test"] for parts in several]).tolist()
    assert sorted(tested) == list(range(len(labels)))
    for parts in several:
        for name, total in Counter(labels).items():
            found = sum(labels[row] == name for row in parts["test"])
            assert total // folds <= found <= -(-total // folds)


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=24, max_size=40),
    seed=st.integers(0, 2**32 - 1),
    folds=st.sampled_from([None, 3]),
)
def test_groups_never_cross(sizes: list[int], seed: int, folds: int | None):
    groups = [str(number) for number, size in enumerate(sizes) for _ in range(size)]
    labels = [str(int(group) % 2) for group in groups]
    parts = split(labels, DataOptions(split_seed=seed, folds=folds), groups=groups)
    assert _covers(parts, len(labels)) and all(len(rows) for rows in parts.values())
    where = [{groups[row] for row in rows} for rows in parts.values()]
    assert sum(len(names) for names in where) == len(sizes)


def test_the_test_part_is_that_of_train_test_split(digits: tuple):
    labels = digits[1]
    numbers = np.array([int(label) for label in labels])
    for seed in range(5):
        parts = split(labels, DataOptions(split_seed=seed, test_share=0.2))
        _, expected = train_test_split(
            np.arange(len(labels)), test_size=0.2, stratify=numbers, random_state=seed
        )
        assert parts["test"].tolist() == sorted(expected.tolist())
        assert len(parts["val"]) and _covers(parts, len(labels))


def test_a_split_repeats_with_its_seed_and_changes_with_another(digits: tuple):
    first, again, other = (split(digits[1], DataOptions(split_seed=seed)) for seed in (3, 3, 4))
    for part, rows in first.items():
        assert rows.tolist() == again[part].tolist() != other[part].tolist()


def test_validation_does_not_depend_on_the_global_generators(digits: tuple):
    first = split(digits[1], DataOptions())
    np.random.seed(1234)
    assert split(digits[1], DataOptions())["val"].tolist() == first["val"].tolist()


def test_parts_of_the_source_are_kept():
    labels = ["a", "b"] * 40
    given_parts = ["test"] * 20 + ["train"] * 60
    parts = split(labels, DataOptions(), given_parts)
    assert parts["test"].tolist() == list(range(20))
    assert len(parts["val"]) == 9 and set(parts["val"]) <= set(range(20, 80))  # 0.15 × 60
    whole = split(labels, DataOptions(), ["val"] * 10 + given_parts[10:])
    assert whole["val"].tolist() == list(range(10)) and len(whole["train"]) == 60


def test_training_and_validation_alone_leave_no_test_part_unless_it_is_asked_for():
    labels, given_parts = ["a", "b"] * 40, ["val"] * 20 + ["train"] * 60
    assert not len(split(labels, DataOptions(), given_parts)["test"])
    asked = split(labels, DataOptions(test_share=0.1), given_parts)
    assert len(asked["test"]) == 6 and asked["val"].tolist() == list(range(20))


def test_folds_of_a_source_with_a_test_part_choose_the_validation():
    labels, given_parts = ["a", "b"] * 40, ["test"] * 20 + ["train"] * 60
    several = [split(labels, DataOptions(folds=3, fold=k), given_parts) for k in range(3)]
    assert all(parts["test"].tolist() == list(range(20)) for parts in several)
    assert sorted(np.concatenate([p["val"] for p in several])) == list(range(20, 80))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_there_is_no_training_without_validation(share: float):
    with pytest.raises(ConfigError, match="always a validation part"):
        split(["a", "b"] * 20, DataOptions(val_share=share))


def test_fewer_samples_of_a_class_than_folds_are_refused_by_name():
    labels = ["cat"] * 30 + ["lynx"] * 4
    with pytest.raises(DataError, match=r"'lynx' \(4\): 5 folds(.|\n)*where: +here"):
        split(labels, DataOptions(folds=5), where="here")
    assert split(labels, DataOptions(folds=4))


def test_a_class_too_small_to_be_cut_is_refused_by_name():
    with pytest.raises(DataError, match=r"'lynx' \(1\)"):
        split(["cat"] * 30 + ["lynx"], DataOptions())


def test_a_part_smaller_than_the_number_of_classes_is_refused():
    with pytest.raises(DataError, match=r"val_share|test_share"):
        split([str(k) for k in range(10) for _ in range(4)], DataOptions(test_share=0.1))


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=25),
    groups=st.booleans(),
    folds=st.sampled_from([None, 2, 5]),
)
def test_small_data_are_split_or_refused_clearly(labels: list[str], groups: bool, folds):
    together = [str(row // 2) for row in range(len(labels))] if groups else None
    try:
        parts = split(labels, DataOptions(folds=folds), groups=together)
    except DataError:
        return
    assert _covers(parts, len(labels)) and all(len(parts[part]) for part in ("train", "val"))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"folds": 1}, None),
        ({"folds": 3, "fold": 3}, None),
        ({"folds": 3, "fold": -1}, None),
        ({"folds": 3, "test_share": 0.2}, None),
        ({"test_share": 0.2}, ["test"] * 20 + ["train"] * 20),
        ({"test_share": 1.0}, None),
        ({"folds": 3}, ["test"] * 10 + ["val"] * 10 + ["train"] * 20),
    ],
)
def test_options_that_contradict_are_refused(options: dict, parts: list[str] | None):
    with pytest.raises(ConfigError, match="data\\."):
        split(["a", "b"] * 20, DataOptions(**options), parts)


def test_a_group_in_two_given_parts_is_refused_by_name():
    with pytest.raises(DataError, match="'patient 1' is in"):
        split(
            ["a", "b"] * 20,
            DataOptions(),
            ["test"] * 4 + ["train"] * 36,
            ["patient 1"] * 8 + [f"patient {k}" for k in range(2, 34)],
        )


def test_multi_label_samples_are_stratified_by_their_rarest_label():
    labels = [("sun",)] * 60 + [("sun", "sea")] * 30 + [()] * 10 + [("sun", "moon")]
    strata = strata_of(labels, True)
    assert Counter(strata) == {"sun": 61, "sea": 30, "": 10}
    parts = split(strata, DataOptions())
    for part, share in (("test", 0.2), ("val", 0.12)):
        with_sea = sum("sea" in labels[row] for row in parts[part])
        assert abs(with_sea - share * 30) < 1.5
