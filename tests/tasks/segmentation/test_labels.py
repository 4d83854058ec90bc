"""Values of masks become class numbers only where that is certain."""

from __future__ import annotations

import numpy as np
import pytest

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation.case import IGNORE
from renshu_tasks.segmentation.labels import check_consecutive, class_numbers


def test_whole_floats_are_numbers_and_others_are_refused() -> None:
    np.testing.assert_array_equal(
        class_numbers(np.array([0.0, 1.0, 2.0000002]), "m", None, None), [0, 1, 2]
    )
    with pytest.raises(DataError, match=r"0\.5") as raised:
        class_numbers(np.array([0.0, 0.5, 1.0]), "mask.nii", None, None)
    assert "mask.nii" in str(raised.value)
    with pytest.raises(DataError):
        class_numbers(np.array([0.0, np.nan]), "m", None, None)


def test_values_are_mapped_only_when_told() -> None:
    # pains/medical.md row 5
    with pytest.raises(DataError, match="255"):
        check_consecutive({0: "a.png", 255: "b.png"}, None, None)
    mapped = class_numbers(np.array([0, 255, 255]), "m", {0: 0, 255: 1}, None)
    np.testing.assert_array_equal(mapped, [0, 1, 1])
    with pytest.raises(DataError, match="value 7"):
        class_numbers(np.array([0, 7]), "m", {0: 0, 255: 1}, None)


@pytest.mark.parametrize("number", [-1, 70_000])
def test_a_map_to_no_class_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=f"{number} is no class number"):
        class_numbers(np.array([0, 255]), "m", {0: 0, 255: number}, None)


def test_a_gap_offers_the_map_that_closes_it() -> None:
    # pains/medical.md row 5: BraTS has the labels 0, 1, 2, 4
    with pytest.raises(DataError, match='"4": 3'):
        check_consecutive({0: "a", 1: "a", 2: "a", 4: "a"}, None, None)


def test_grey_pictures_and_scans_are_no_masks() -> None:
    with pytest.raises(DataError, match="grey picture"):
        check_consecutive(dict.fromkeys(range(0, 250, 3), "grey.png"), None, None)
    with pytest.raises(DataError, match="-1000"):
        class_numbers(np.array([-1000, 40]), "ct.nii", None, None)


def test_a_class_that_was_never_named_is_refused() -> None:
    with pytest.raises(DataError, match="never named"):
        check_consecutive({0: "a", 3: "b"}, 3, None)


def test_an_ignored_value_is_known_nowhere() -> None:
    found = class_numbers(np.array([0, 1, 255]), "m", None, 255)
    np.testing.assert_array_equal(found, [0, 1, IGNORE])
