"""Cuts cases into training, validation and test parts: by patient, evenly over what they show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renshu.errors import ConfigError, DataError
from renshu_tasks.common.parts import PARTS
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.records import Record

TEST_SHARE = 0.2


def split(
    records: Sequence[Record], shown: Sequence[frozenset[int]], options: DataOptions, where: str
) -> dict[str, list[int]]:
    """Positions of the cases of "train", "val" and "test" (which may be empty; the others not).

    `shown` are the classes that each case holds: patients are sorted by them, shuffled by the seed
    among equals, and taken at even distances, so that a rare class reaches every part. Parts that
    the source gives are kept. With `folds`, fold `fold` is left out: as the test, or as validation
    where the source has a test part. A case's patient is its own name unless the source says more.
    """
    patients = [record.patient or record.id for record in records]
    given = {p: [i for i, r in enumerate(records) if (r.part or "train") == p] for p in PARTS}
    _check_options(options, given)
    cutter = _Cutter(patients, shown, options.split_seed, where)
    found = dict(given)
    if options.folds is not None:
        out = "val" if given["test"] else "test"
        found["train"], found[out] = cutter.fold(given["train"], options.folds, options.fold)
    elif not given["test"]:
        share = options.test_share
        if share is None:
            share = 0.0 if given["val"] else TEST_SHARE
        if share:
            found["train"], found["test"] = cutter.share(found["train"], share)
    if not found["val"]:
        found["train"], found["val"] = cutter.share(found["train"], options.val_share)
    _check_patients(found, patients, where)
    return found


class _Cutter:
    """Cuts cases off a pool, patient by patient."""

    def __init__(
        self, patients: list[str], shown: Sequence[frozenset[int]], seed: int, where: str
    ) -> None:
        self.patients, self.shown, self.seed, self.where = patients, shown, seed, where

    def share(self, pool: list[int], share: float) -> tuple[list[int], list[int]]:
        """(rest, cut off): at least one patient each."""
        order = self._order(pool, 2)
        count = min(max(1, round(share * len(order))), len(order) - 1)
        places = {int((n + 0.5) * len(order) / count) for n in range(count)}
        return self._divide(pool, {order[place] for place in places})

    def fold(self, pool: list[int], folds: int, fold: int) -> tuple[list[int], list[int]]:
        """(rest, left out) of a k-fold; the left out of all folds are the pool."""
        return self._divide(pool, set(self._order(pool, folds)[fold::folds]))

    def _order(self, pool: list[int], least: int) -> list[str]:
        """The pool's patients, those that show the same classes beside each other."""
        shows: dict[str, set[int]] = {}
        for row in pool:
            shows.setdefault(self.patients[row], set()).update(self.shown[row])
        if len(shows) < least:
            raise DataError(
                f"{len(shows)} patients cannot be cut into {least} parts",
                where=self.where,
                allowed=f"{least} patients or more, besides those of given parts",
                mend="give the parts yourself, in the column split of a table",
            )
        names = sorted(shows)
        shuffled = np.random.default_rng(self.seed).permutation(len(names))
        return sorted((names[n] for n in shuffled), key=lambda name: sorted(shows[name]))

    def _divide(self, pool: list[int], out: set[str]) -> tuple[list[int], list[int]]:
        rest = [row for row in pool if self.patients[row] not in out]
        return rest, [row for row in pool if self.patients[row] in out]


def _check_options(options: DataOptions, given: dict[str, list[int]]) -> None:
    chosen = bool(given["test"]) or options.folds is not None
    if options.test_share is not None and chosen:
        raise ConfigError(
            "data.test_share cannot be kept where the source or data.folds give the test part",
            where=f"data.test_share={options.test_share}",
            mend="leave it out",
        )
    if options.folds is not None and given["val"] and given["test"]:
        raise ConfigError(
            "the source has a validation and a test part, so nothing is left to be folded",
            where=f"data.folds={options.folds}",
            mend="leave it out",
        )


def _check_patients(parts: dict[str, list[int]], patients: list[str], where: str) -> None:
    seen: dict[str, str] = {}
    for part, rows in parts.items():
        for patient in {patients[row] for row in rows}:
            if seen.setdefault(patient, part) != part:
                raise DataError(
                    f"the patient {patient!r} is in {seen[patient]} and in {part}",
                    where=where,
                    mend="give every case of a patient the same part",
                )
