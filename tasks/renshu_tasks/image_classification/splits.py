"""Cuts samples into training, validation and test parts: stratified, grouped, k-fold."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from renshu.errors import ConfigError, DataError
from renshu_tasks.common.parts import PARTS
from renshu_tasks.image_classification.options import DataOptions

Rows = NDArray[np.int64]
TEST_SHARE = 0.2


def split(
    strata: Sequence[str],
    options: DataOptions,
    parts: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    where: str = "data",
) -> dict[str, Rows]:
    """Sorted rows of "train", "val" and "test" (which may be empty; the others never are).

    Parts that the source gives are kept and what is missing is cut from its training part: each
    class keeps its share, and a group stays together. With `folds`, part `fold` of a stratified
    k-fold is left out: as the test part, or as validation where the source has a test part.
    Raises ConfigError for options that contradict, DataError for classes that are too small.
    """
    _check_options(options, parts)
    values, given = np.asarray(strata), np.asarray(parts or ["train"] * len(strata))
    together = None if groups is None else np.asarray(groups)
    found: dict[str, Rows] = {part: np.flatnonzero(given == part) for part in PARTS}
    cutter = _Cutter(values, together, options.split_seed, where)
    if options.folds is not None:
        part = "val" if len(found["test"]) else "test"
        rest, out = cutter.fold(found["train"], options.folds, options.fold)
        found |= {"train": rest, part: out}
    elif not len(found["test"]):
        share = options.test_share
        if share is None:
            share = 0.0 if len(found["val"]) else TEST_SHARE
        if share:
            found["train"], found["test"] = cutter.cut(found["train"], share, "test_share")
    if not len(found["val"]):
        found["train"], found["val"] = cutter.cut(found["train"], options.val_share, "val_share")
    found = {part: np.sort(rows) for part, rows in found.items()}
    _check_groups(found, together, where)
    return found


def strata_of(labels: Sequence[tuple[str, ...]], multi_label: bool) -> list[str]:
    """The class by which a sample is stratified; for multi-label data its rarest label.

    Rarest labels that only one sample has are taken together, so that every stratum can be cut.
    """
    if not multi_label:
        return [label[0] for label in labels]
    counts = Counter(name for label in labels for name in label)
    rarest = [min(label, key=lambda name: (counts[name], name), default="") for label in labels]
    sizes = Counter(rarest)
    few = {name for name, size in sizes.items() if size < 4}
    common = sizes.most_common(1)[0][0]
    return [common if name in few else name for name in rarest]


def _check_options(options: DataOptions, parts: Sequence[str] | None) -> None:
    given, folds, share = set(parts or ()), options.folds, options.test_share
    chosen = "test" in given or folds is not None
    rules = {
        "no data.test_share where the source or data.folds give the test part": (
            share is None or not chosen
        ),
        "no data.folds where the source has a validation and a test part": (
            folds is None or not {"val", "test"} <= given
        ),
    }
    for rule, holds in rules.items():
        if not holds:
            names = ("val_share", "test_share", "folds", "fold")
            given_as = ", ".join(f"data.{name}={getattr(options, name)}" for name in names)
            raise ConfigError(
                "the data cannot be split as the options say", where=given_as, allowed=rule
            )


class _Cutter:
    """Cuts a part off a pool of rows. `strata` [N] and `groups` [N] or None are for all rows."""

    def __init__(self, strata: np.ndarray, groups: np.ndarray | None, seed: int, where: str):
        self.strata, self.groups, self.seed, self.where = strata, groups, seed, where

    def cut(self, pool: Rows, share: float, option: str) -> tuple[Rows, Rows]:
        """(rest, part); exactly scikit-learn's `train_test_split(stratify=…)` without groups."""
        from sklearn.model_selection import train_test_split

        if self.groups is not None:
            folds = max(2, round(1 / share))
            return self._grouped(pool, folds, 0, option)
        strata = self.strata[pool]
        self._enough(strata, 2, "a class needs a picture in each part")
        classes, size = len(set(strata)), int(np.ceil(share * len(pool)))
        if min(size, len(pool) - size) < classes:
            raise DataError(
                f"a share of {share} of {len(pool)} pictures is {size}, for {classes} classes",
                where=self.where,
                allowed="at least as many pictures as classes on both sides",
                mend=f"another --data.{option}, or more pictures",
            )
        parts = train_test_split(pool, test_size=share, stratify=strata, random_state=self.seed)
        return np.asarray(parts[0]), np.asarray(parts[1])

    def fold(self, pool: Rows, folds: int, fold: int) -> tuple[Rows, Rows]:
        """(rest, left out) of a stratified k-fold."""
        from sklearn.model_selection import StratifiedKFold

        self._enough(self.strata[pool], folds, f"{folds} folds need as many pictures of a class")
        if self.groups is not None:
            return self._grouped(pool, folds, fold, "folds")
        kind = StratifiedKFold(folds, shuffle=True, random_state=self.seed)
        rest, out = list(kind.split(pool, self.strata[pool]))[fold]
        return pool[rest], pool[out]

    def _grouped(self, pool: Rows, folds: int, fold: int, option: str) -> tuple[Rows, Rows]:
        from sklearn.model_selection import StratifiedGroupKFold

        assert self.groups is not None
        strata, groups = self.strata[pool], self.groups[pool]
        if len(set(groups)) < folds:
            raise DataError(
                f"{len(set(groups))} groups cannot be cut into {folds} parts",
                where=self.where,
                mend=f"a larger --data.{option}" if option != "folds" else "fewer --data.folds",
            )
        self._enough(strata, 2, "a class needs a picture in each part")
        folds = min(folds, max(Counter(strata).values()))
        kind = StratifiedGroupKFold(folds, shuffle=True, random_state=self.seed)
        with warnings.catch_warnings():  # of a class smaller than the folds: checked by our own
            warnings.simplefilter("ignore", UserWarning)
            rest, out = list(kind.split(pool, strata, groups))[fold]
        if not len(rest) or not len(out):
            raise DataError("the groups are too large to be cut", where=self.where)
        return pool[rest], pool[out]

    def _enough(self, strata: np.ndarray, least: int, why: str) -> None:
        few = {str(name): size for name, size in Counter(strata).items() if size < least}
        if few:
            raise DataError(
                f"too few pictures of {', '.join(f'{n!r} ({k})' for n, k in few.items())}: {why}",
                where=self.where,
                allowed=f"{least} or more of every class, to be cut here",
                mend="add pictures, remove the class, or give the parts yourself",
            )


def _check_groups(parts: dict[str, Rows], groups: np.ndarray | None, where: str) -> None:
    if groups is None:
        return
    seen: dict[str, str] = {}
    for part, rows in parts.items():
        for group in set(groups[rows].tolist()):
            if seen.setdefault(group, part) != part:
                raise DataError(
                    f"the group {group!r} is in {seen[group]} and in {part}",
                    where=where,
                    mend="give every picture of a group the same part",
                )
