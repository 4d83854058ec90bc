"""From the values that a mask's file holds to class numbers, and nothing guessed on the way."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation.case import IGNORE

NEAR = 1e-3
"""A stored float so near to a whole number is that number: what scaling in a header leaves."""

MOST_CLASSES = 1000
_SHOWN = 8


def class_numbers(
    values: NDArray, where: str, label_map: Mapping[int, int] | None, ignore: int | None
) -> NDArray[np.int16]:
    """Stored values of a mask → class numbers, IGNORE where `ignore` was stored.

    Without a map the stored numbers are the class numbers; with one, values that it lacks are
    refused. Raises DataError for values that are no whole numbers (a mask that was resampled or a
    grey picture), negative or beyond what a class can be, and ConfigError for such a map.
    """
    whole = whole_numbers(values, where)
    found = np.unique(whole)
    kept = found[found != ignore] if ignore is not None else found
    if label_map is None:
        wrong = kept[(kept < 0) | (kept >= MOST_CLASSES)]
        allowed, mend = f"0 to {MOST_CLASSES - 1}", suggest_map(kept)
    else:
        if outside := [n for n in label_map.values() if not 0 <= n < MOST_CLASSES]:
            raise ConfigError(
                f"{outside[0]} is no class number",
                where="data.label_map",
                allowed=f"0 to {MOST_CLASSES - 1}",
            )
        wrong = np.setdiff1d(kept, list(label_map))
        allowed, mend = ", ".join(map(str, label_map)), "add them to --data.label_map"
    if len(wrong):
        raise DataError(
            f"the mask holds {shown(wrong)}, which name no class",
            where=where,
            allowed=allowed,
            mend=mend,
        )
    numbers = whole.astype(np.int16) if label_map is None else np.zeros(whole.shape, np.int16)
    for stored, number in (label_map or {}).items():
        numbers[whole == stored] = number
    if ignore is not None:
        numbers[whole == ignore] = IGNORE
    return numbers


def whole_numbers(values: NDArray, where: str) -> NDArray[np.int64]:
    """Values as int64; raises DataError naming those that are no whole numbers."""
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    rounded = np.rint(values)
    off = ~(np.abs(values - rounded) <= NEAR)  # so that NaN is off as well
    if off.any():
        raise DataError(
            f"the mask holds {shown(np.unique(values[off]))}: no whole numbers",
            where=where,
            allowed="a whole number a class: a mask that was interpolated has lost its classes",
            mend="resample the mask anew, by nearest neighbour",
        )
    return rounded.astype(np.int64)


def check_consecutive(found: Mapping[int, str], classes: int | None, ignore: int | None) -> None:
    """Raise DataError unless the class numbers `found` (number → a file with it) are 0 … n.

    `classes` is the number of classes where their names were given.
    """
    numbers = sorted(found)
    if classes is not None:
        beyond = [number for number in numbers if number >= classes]
        if beyond:
            raise DataError(
                f"the mask holds {shown(np.array(beyond))}, a class that was never named",
                where=found[beyond[0]],
                allowed=f"0 to {classes - 1}",
                mend="name it in --data.classes, or map it with --data.label_map",
            )
        return
    missing = sorted(set(range(numbers[-1] + 1 if numbers else 0)) - set(numbers) - {0})
    if missing:
        picture = numbers == [0, 255] or len(numbers) > 50
        what = "; is it a grey picture?" if picture else ""
        raise DataError(
            f"the masks hold {shown(np.array(numbers))} but not {missing[0]}{what}",
            where=found[numbers[-1]],
            allowed="0 (background) to n without a gap",
            mend=suggest_map(np.array(numbers)),
        )


def suggest_map(found: NDArray) -> str:
    """An option that numbers the values found in their order; for few values only."""
    if len(found) > 20:
        return "give masks with one whole number a class"
    pairs = ", ".join(f'"{value}": {number}' for number, value in enumerate(found.tolist()))
    return f"--data.label_map '{{{pairs}}}' if that is what they mean"


def shown(values: NDArray) -> str:
    """A few of the values, for a message."""
    text = ", ".join(f"{value:g}" for value in values[:_SHOWN].tolist())
    more = f" and {len(values) - _SHOWN} other values" if len(values) > _SHOWN else ""
    return f"the values {text}{more}" if len(values) > 1 else f"the value {text}"
