"""The data of segmentation: found, examined, split, planned for, prepared and cut into patches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from renshu.data import DataModule
from renshu.errors import DataError
from renshu.messages import say
from renshu_tasks.segmentation import fingerprint as fp
from renshu_tasks.segmentation import sources
from renshu_tasks.segmentation.cache import Cache, key
from renshu_tasks.segmentation.case import Case
from renshu_tasks.segmentation.defaults import Device, describe_device, free_memory, resolve
from renshu_tasks.segmentation.labels import check_consecutive
from renshu_tasks.segmentation.options import SegmentationOptions
from renshu_tasks.segmentation.patches import Patches, as_batch
from renshu_tasks.segmentation.plan import Plan, read_run_plan
from renshu_tasks.segmentation.planning import make_plan
from renshu_tasks.segmentation.prepare import Prepared, padded, prepare
from renshu_tasks.segmentation.records import Source
from renshu_tasks.segmentation.splits import split

_NEEDED = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}
_VALIDATED = 16
"""Patches a validation case at most; the full-case Dice is what a run is judged by."""


def build(options: SegmentationOptions) -> SegmentationData:
    """The data that the options name, examined and summed up on the terminal."""
    data = SegmentationData(sources.find(options.data), options)
    for line in data.summary():
        say(line, once=True)
    return data


class SegmentationData(DataModule):
    """Cases with masks in a training, a validation and (unless asked without) a test part.

    Every case is read and examined when it is made, so that whatever is wrong with a file is said
    before any training; then it is split by patient. For batches see `patches.Patches`.

    Attributes:
        facts: what each case is like, by row.
        parts: rows by part: "train", "val", "test".
        classes: names by number, the background first.
        followed: folder of the run whose plan is used; None where the plan is made anew.
    """

    def __init__(
        self,
        source: Source,
        options: SegmentationOptions | None = None,
        device: Device | None = None,
    ) -> None:
        super().__init__()
        self.options = options = options or SegmentationOptions()
        self.source, self.records = source, source.records
        self._device = device or describe_device()  # before the cases fill the memory
        self.facts = [fp.examine(source.load(record)) for record in source.records]
        self._refuse_mixed()
        self.parts = split(
            self.records, [one.shown for one in self.facts], options.data, source.where
        )
        self.classes = self._find_classes()
        if not options.data.allow_overlap:
            self._refuse_twins()
        self.followed: Path | None = None
        self._caches: dict[str, Cache] = {}

    @cached_property
    def plan(self) -> Plan:
        """Everything between a case and its mask but the weights, from the training part alone."""
        return make_plan(
            [self.facts[row] for row in self.parts["train"]],
            self.classes,
            self.source,
            self.options,
            self._device,
            resolve(self._device),
        )

    def follow(self, run_dir: Path) -> None:
        """Take the run's plan, whatever this device and its free memory would allow.

        Raises ConfigError for options, and DataError for classes, that are not the run's.
        """
        self.plan = read_run_plan(run_dir, self.options, self.classes)
        self.followed = run_dir

    # ---- cases

    def case(self, row: int) -> Case:
        """One case as it was stored, read anew."""
        return self.source.load(self.records[row])

    def cases(self, part: str) -> Iterator[Case]:
        """The cases of "train", "val" or "test", one after the other."""
        self._require(part)
        return (self.case(row) for row in self.parts[part])

    def full_cases(self) -> Iterator[Case]:
        """The validation cases whose full-case Dice is logged: always the same."""
        rows = self.parts["val"]
        count = min(self.options.training.full_cases, len(rows))
        return (self.case(rows[n * len(rows) // count]) for n in range(count))

    def measured_classes(self, case: Case) -> dict[int, str]:
        """Number and name of the classes above 0 that were looked for in a case."""
        looked = range(len(self.classes)) if case.annotated is None else case.annotated
        return {number: self.classes[number] for number in looked if number}

    # ---- loaders

    def setup(self, stage: str) -> None:
        for part in _NEEDED.get(stage, ()):
            self._cache(part)

    def teardown(self, stage: str) -> None:
        for cache in self._caches.values():
            cache.close()
        self._caches.clear()

    def patches(self, part: str) -> Patches:
        """Patches of a part: random ones for training, always the same for the others."""
        self._require(part)
        rows, plan = self.parts[part], self.plan
        fixed = part != "train"
        return Patches(
            self._cache(part),
            len(rows),
            np.stack([self._annotated(row) for row in rows]),
            plan.patch,
            min(_VALIDATED * len(rows), plan.patches // 4 or 1) if fixed else plan.patches,
            self.options.data.foreground,
            fixed=fixed,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def _loader(self, part: str) -> DataLoader[Any]:
        workers = self.options.data.num_workers
        return DataLoader(
            self.patches(part),
            batch_size=self.plan.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=as_batch,
        )

    def _cache(self, part: str) -> Cache:
        if part in self._caches:
            return self._caches[part]
        rows, plan, data = self.parts[part], self.plan, self.options.data

        def make(number: int) -> Prepared:
            return padded(prepare(self.case(rows[number]), plan), plan.patch)

        budget = free_memory() // 4 if data.cache_mb is None else data.cache_mb * 2**20
        self._caches[part] = Cache(
            make,
            [self._prepared_bytes(row) for row in rows],
            [key(self.facts[row].sha256, plan) for row in rows],
            budget,
            None if data.cache_dir is None else Path(data.cache_dir),
        )
        return self._caches[part]

    def _prepared_bytes(self, row: int) -> int:
        """Of a case once it is prepared, before it is: 4 bytes a voxel and channel, 2 of mask."""
        one = self.facts[row]
        sizes = zip(
            one.canonical(one.shape),
            one.canonical(one.spacing),
            self.plan.spacing,
            self.plan.patch,
            strict=True,
        )
        voxels = np.prod([max(n * have / want, patch) for n, have, want, patch in sizes])
        return int(voxels * (4 * len(one.channels) + 2))

    def _annotated(self, row: int) -> NDArray[np.bool_]:
        """bool [K]: the classes that were looked for; the background always was."""
        found = np.ones(len(self.classes), dtype=bool)
        if (looked := self.records[row].annotated) is not None:
            found[:] = False
            found[[0, *looked]] = True
        return found

    # ---- what is known of the data

    def fingerprint(self) -> dict[str, Any]:
        """By part: files, bytes, ids, and SHA-256 over every id and content."""
        return {part: self._fingerprint(rows) for part, rows in self.parts.items()}

    def _fingerprint(self, rows: list[int]) -> dict[str, Any]:
        ids = [self.records[row].id for row in rows]
        total = hashlib.sha256()
        for row in sorted(rows, key=lambda row: self.records[row].id):
            total.update(f"{self.records[row].id}\0{self.facts[row].sha256}\n".encode())
        size = sum(self.facts[row].size for row in rows)
        return {"files": len(ids), "bytes": size, "sha256": total.hexdigest(), "ids": ids}

    def summary(self) -> list[str]:
        """Source, parts and what is striking: a line each."""
        sizes = ", ".join(f"{part} {len(rows)}" for part, rows in self.parts.items())
        train = [self.facts[row] for row in self.parts["train"]]
        return [
            f"{self.source.where}: {len(self.records)} cases ({sizes})",
            f"{len(self.classes)} classes: {', '.join(self.classes)}",
            self._imbalance(train),
            *(f"note: {note}" for note in self.source.notes),
        ]

    def planned(self) -> list[str]:
        """The decisions of the plan, and what speaks against them: a line each."""
        train = [self.facts[row] for row in self.parts["train"]]
        return [
            *([f"plan: that of {self.followed}"] if self.followed else []),
            *(f"plan: {name}: {why}" for name, why in self.plan.reasons.items()),
            *(f"warning: {said}" for said in fp.warnings(train, self.classes, self.plan.patch)),
        ]

    def _imbalance(self, train: list[fp.Facts]) -> str:
        """How unequal the classes above 0 are in the training part."""
        counts = {
            name: sum(one.voxels.get(number, 0) for one in train)
            for number, name in enumerate(self.classes)
            if number
        }
        few, many = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        ratio = counts[many] / max(counts[few], 1)
        return (
            f"imbalance in training: {ratio:.1f} (largest {many} {counts[many]:,}, smallest {few}"
            f" {counts[few]:,} voxels); patches show all classes equally often"
        )

    # ---- what is refused

    def _find_classes(self) -> list[str]:
        """Names by number; raises DataError for a mask with a class never named or trained."""
        seen = {
            number: str(record.mask or record.id)
            for record, facts in zip(self.records, self.facts, strict=True)
            for number in facts.voxels
            if number >= 0
        }
        named = self.source.classes
        check_consecutive(seen, None if named is None else len(named), None)
        classes = named or ["background", *(f"class {n}" for n in range(1, max(seen) + 1))]
        trained = {number for row in self.parts["train"] for number in self.facts[row].shown}
        for part in ("val", "test"):
            for row in self.parts[part]:
                for number in self.facts[row].shown - trained:
                    raise DataError(
                        f"the mask holds class {number} ({classes[number]}), which no training"
                        " mask holds",
                        where=f"{self.source.where}, {self.records[row].id} ({part})",
                        allowed=", ".join(f"{k} ({classes[k]})" for k in sorted(trained)),
                        mend="add training cases that show it, or another --data.split_seed",
                    )
        self._refuse_annotations(len(classes))
        if not trained:
            raise DataError(
                "all training masks are empty", where=self.source.where, allowed="a class above 0"
            )
        return list(classes)

    def _refuse_annotations(self, classes: int) -> None:
        """A case lists classes that exist, and all that its mask holds."""
        for record, facts in zip(self.records, self.facts, strict=True):
            if record.annotated is None:
                continue
            listed = set(record.annotated)
            for said, wrong in (
                ("no class has the number", sorted(n for n in listed if n >= classes)),
                ("the mask holds a class that is not listed:", sorted(facts.shown - listed - {0})),
            ):
                if wrong:
                    raise DataError(
                        f"{said} {wrong[0]}",
                        where=f"{self.source.where}, {record.id}, annotated",
                        allowed=f"of 0 to {classes - 1}, all that the mask holds",
                    )

    def _refuse_mixed(self) -> None:
        """All cases have as many axes and channels, and a mask."""
        first = self.facts[0]
        for record, one in zip(self.records, self.facts, strict=True):
            for what, have, want in (
                ("axes", len(one.shape), len(first.shape)),
                ("channels", len(one.channels), len(first.channels)),
            ):
                if have != want:
                    raise DataError(
                        f"the case has {have} {what}, the first one {want}",
                        where=record.images[0] if record.images else record.id,
                        allowed=f"as many {what} in every case",
                    )

    def _refuse_twins(self) -> None:
        """No image is in two parts, under whatever name and with whatever mask."""
        seen: dict[str, tuple[str, int]] = {}
        for part, rows in self.parts.items():
            for row in rows:
                other = seen.setdefault(self.facts[row].voxels_sha256, (part, row))
                if other[0] != part:
                    raise DataError(
                        f"{self.records[row].id} ({part}) and {self.records[other[1]].id}"
                        f" ({other[0]}) are the same image",
                        where=self.source.where,
                        mend="remove one, or --data.allow_overlap true",
                    )

    def _require(self, part: str) -> None:
        if not self.parts.get(part):
            raise DataError(
                f"there is no {part} part",
                where=self.source.where,
                allowed=", ".join(name for name, rows in self.parts.items() if rows),
                mend="--data.test_share 0.2" if part == "test" else None,
            )


def check(options: SegmentationOptions) -> list[str]:
    """What `renshu check-data` prints: fingerprint, parts, warnings and plan."""
    data = SegmentationData(sources.find(options.data), options)
    return [*fp.summary(data.facts, data.classes), *data.summary(), *data.planned()]
