"""Cuts rows into training, validation and test parts: stratified, and equal texts stay together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from renshu.errors import ConfigError, DataError
from renshu_tasks.common.parts import PARTS
from renshu_tasks.text.options import DataOptions

Rows = NDArray[np.int64]
TEST_SHARE = 0.2


def split(
    strata: NDArray[np.int64],
    groups: NDArray[np.int64],
    given: NDArray[np.str_],
    options: DataOptions,
    where: str,
) -> dict[str, Rows]:
    """Sorted rows of "train", "val" and "test" (which may be empty; the others never are).

    Parts that the source gives are kept and what is missing is cut from its training part, so that
    each stratum keeps its share and a group stays together (scikit-learn's StratifiedGroupKFold,
    whose fold 0 is the part).

    Args:
        strata: [N] number of the class; all 0 where there is none.
        groups: [N] number of what stays together.
        given: [N] train, val, test or "".
        options: shares and seed.
        where: what messages call the source.

    Raises:
        ConfigError: options that contradict the source.
        DataError: too few rows or groups to be cut.
    """
    if (given == "test").any() and options.test_share is not None:
        raise ConfigError(
            "the source has a test part of its own",
            where=f"data.test_share={options.test_share}",
            allowed="no data.test_share where the source gives the test part",
        )
    found: dict[str, Rows] = {part: np.flatnonzero(given == part) for part in PARTS}
    found["train"] = np.sort(np.concatenate([found["train"], np.flatnonzero(given == "")]))
    share = options.test_share
    if share is None:
        share = 0.0 if len(found["val"]) else TEST_SHARE
    if not len(found["test"]) and share:
        found["train"], found["test"] = _cut(found["train"], share, strata, groups, options, where)
    if not len(found["val"]):
        share = options.val_share
        found["train"], found["val"] = _cut(found["train"], share, strata, groups, options, where)
    return found


def _cut(
    pool: Rows,
    share: float,
    strata: NDArray[np.int64],
    groups: NDArray[np.int64],
    options: DataOptions,
    where: str,
) -> tuple[Rows, Rows]:
    """(rest, part), both sorted."""
    folds = max(2, round(1 / share))
    if abs(1 / folds - share) > 0.01:
        raise ConfigError(
            f"a share of {share:g} cannot be cut: a part is one of some equal folds",
            where=where,
            allowed="a share near 1/2, 1/3, 1/4, 1/5 … ",
            mend=f"{1 / folds:.3g}, or a split column with the parts",
        )
    sizes = len(np.unique(groups[pool]))
    if sizes < folds:
        raise DataError(
            f"{sizes} different texts cannot be cut into {folds} parts",
            where=where,
            mend="more texts, or a split column with the parts",
        )
    counts = np.bincount(strata[pool])
    if (few := counts[counts > 0].min()) < 2:
        raise DataError(
            f"a class has {few} text",
            where=where,
            allowed="two or more of every class, to be cut here",
            mend="add texts, remove the class, or give the parts yourself",
        )
    folds = min(folds, int(counts.max()))
    part = first_fold(strata[pool], groups[pool], folds, options.split_seed)
    return pool[~part], pool[part]


def first_fold(
    strata: NDArray[np.int64], groups: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.bool_]:
    """Bool [N]: fold 0 of scikit-learn's StratifiedGroupKFold(folds, shuffle=True).

    The same choice at each step, from figures that are equal to the last bit, for all folds at
    once: 37,000 texts take some seconds in place of a minute.
    """
    _, strata, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    _, groups = np.unique(groups, return_inverse=True)
    classes, many = len(sizes), int(groups.max()) + 1
    table = np.bincount(groups * classes + strata, minlength=many * classes).reshape(many, classes)
    order = np.arange(many)
    np.random.RandomState(seed).shuffle(order)
    order = order[np.argsort(-np.std(table[order].astype(float), axis=1), kind="stable")]
    held = np.zeros((folds, classes))
    here = np.eye(folds)[:, :, None]  # [candidate, fold, 1]: the fold that would get the group
    chosen = np.zeros(many, dtype=bool)
    for group in order:
        shares = (held + here * table[group]) / sizes
        shares -= np.add.reduce(shares, 1, keepdims=True) / folds
        spread = np.sqrt(np.add.reduce(shares * shares, 1) / folds)
        scores = (np.add.reduce(spread, 1) / classes).tolist()
        best = _best_fold(scores, np.add.reduce(held, 1).tolist())
        held[best] += table[group]
        chosen[group] = best == 0
    return chosen[groups]


def _best_fold(scores: list[float], held: list[float]) -> int:
    """The lowest score; of close ones (numpy's isclose) the fold that holds the fewest."""
    best = 0
    for fold in range(1, len(scores)):
        low = scores[best]
        close = abs(scores[fold] - low) <= 1e-8 + 1e-5 * abs(low)
        if scores[fold] < low or (close and held[fold] < held[best]):
            best = fold
    return best


def limit(rows: Rows, strata: NDArray[np.int64], count: int, seed: int) -> Rows:
    """`count` of the rows, each stratum with its share, in order; all if there are no more."""
    if count >= len(rows):
        return rows
    drawn = np.random.default_rng(seed).permutation(len(rows))
    order = drawn[np.argsort(strata[rows[drawn]], kind="stable")]
    places = np.floor(np.arange(count) * (len(rows) / count)).astype(np.int64)
    return np.sort(rows[order[places]])


def duplicates(parts: Mapping[str, Rows], keys: NDArray[np.int64]) -> dict[str, int]:
    """Rows of val and test whose key is also in an earlier part: "val" → how many."""
    found: dict[str, int] = {}
    seen = np.unique(keys[parts["train"]])
    for part in ("val", "test"):
        found[part] = int(np.isin(keys[parts[part]], seen).sum())
        seen = np.union1d(seen, keys[parts[part]])
    return found
