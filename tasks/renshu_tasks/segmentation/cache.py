"""Keeps prepared cases: in memory as far as a budget goes, and on disk by content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from renshu.messages import say
from renshu_tasks.segmentation.plan import Plan
from renshu_tasks.segmentation.prepare import Prepared

_FORMAT = 1


class Cache:
    """Prepared cases by number.

    Args:
        make: prepares a case; called once a case, unless it fits nowhere.
        sizes: bytes of each case once prepared, estimated.
        keys: what identifies each case's content and preparation; see `key`.
        budget: bytes that may be kept in memory.
        folder: where cases are kept on disk too; None: nowhere.
    """

    def __init__(
        self,
        make: Callable[[int], Prepared],
        sizes: Sequence[int],
        keys: Sequence[str],
        budget: int,
        folder: Path | None,
    ) -> None:
        self._make, self._keys, self._folder = make, keys, folder
        self._kept: dict[int, Prepared] = {}
        self._keep = set()
        for number, size in enumerate(sizes):
            if size <= budget:
                budget -= size
                self._keep.add(number)
        left = len(sizes) - len(self._keep)
        if left:
            total, mib = sum(sizes), 2**20
            say(
                f"{left} of {len(sizes)} prepared cases do not fit in memory ({total / mib:,.0f}"
                " MiB in all, data.cache_mb) and are "
                + ("read from data.cache_dir" if folder else "prepared anew each time"),
                once=True,
            )

    def __getitem__(self, number: int) -> Prepared:
        found = self._kept.get(number)
        if found is None:
            found = self._from_disk(number) or self._made(number)
            if number in self._keep:
                self._kept[number] = found
        return found

    def close(self) -> None:
        """Give the memory back."""
        self._kept.clear()

    def _made(self, number: int) -> Prepared:
        """Prepared anew, and written under a temporary name first: two runs may share a folder."""
        made = self._make(number)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._file(number)
            arrays = {"image": made.image, "affine": made.affine}
            if made.mask is not None:
                arrays["mask"] = made.mask
            new = file.with_suffix(f".{os.getpid()}")
            save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, new)
            new.replace(file)
        return made

    def _from_disk(self, number: int) -> Prepared | None:
        if self._folder is None or not self._file(number).is_file():
            return None
        try:
            arrays = load_file(self._file(number))
            return Prepared(arrays["image"], arrays["affine"], arrays.get("mask"))
        except (SafetensorError, KeyError, OSError) as error:
            say(f"{self._file(number)} is torn ({error}) and is made anew")
            return None

    def _file(self, number: int) -> Path:
        assert self._folder is not None
        return self._folder / f"{self._keys[number]}.safetensors"


def key(content: str, plan: Plan) -> str:
    """What a prepared case depends on: its files, how it is prepared, and by which version."""
    how = {
        "format": _FORMAT,
        "renshu": version("renshu"),
        "content": content,
        "spacing": plan.spacing,
        "intensities": [vars(one) for one in plan.intensities],
        "patch": plan.patch,
    }
    return hashlib.sha256(json.dumps(how, sort_keys=True).encode()).hexdigest()
