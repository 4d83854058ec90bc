"""The data of image classification: found, checked, split and loaded."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, WeightedRandomSampler

from renshu.data import DataModule
from renshu.errors import ConfigError, DataError, near
from renshu.messages import say
from renshu_tasks.common.parts import PARTS
from renshu_tasks.image_classification import sources
from renshu_tasks.image_classification.defaults import Defaults, describe_device, resolve
from renshu_tasks.image_classification.labels import (
    check_labels,
    encode,
    find_classes,
    label_names,
)
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.pictures import (
    Pictures,
    PicturesInMemory,
    PicturesOnDisk,
    as_batch,
    moments,
    read,
    read_all,
    scaled,
)
from renshu_tasks.image_classification.records import Records
from renshu_tasks.image_classification.splits import Rows, split, strata_of
from renshu_tasks.image_classification.verify import examine_all, refuse_twins

if TYPE_CHECKING:
    from renshu_tasks.image_classification.options import ImageClassificationOptions

_OWN_SIZE = 256  # pictures that are all equal and no larger keep their size
_USUAL_SIZE = 224
_UNEQUAL = 1.5  # largest class by smallest, from which that is worth a line
_MEASURED = 2000  # training pictures on disk from which mean and deviation are taken


def build(options: ImageClassificationOptions) -> ImageData:
    """The data that the options name, checked, split and summed up on the terminal.

    Raises DataError or ConfigError, with the file, row or option at fault.
    """
    data = ImageData(sources.find(options.data), options.data)
    for line in [*data.summary(), data.defaults.describe(options, data.num_workers)]:
        if line:
            say(line, once=True)
    return data


class ImageData(DataModule):
    """Pictures with labels in a training, a validation and (unless asked without) a test part.

    Everything is found out when it is made: which pictures can be read, the split, the classes,
    and from the training part alone mean, deviation and class weights. A batch is a dict: image
    uint8 [B, C, H, W], label int64 [B] or float32 [B, K], index int64 [B] (row in the source)
    and in training seed int64 [B].

    Attributes:
        classes: names of the classes; a label is a position in this list.
        parts: rows of the source by part: "train", "val", "test".
        channels: 1 or 3 (or what the arrays have).
        image_size: (H, W) of every picture in pixels.
        mean, std: of each channel, for values in [0, 1].
        multi_label: whether a picture may have several labels, or none.
        notes: what was left out or decided, a sentence each.
    """

    def __init__(self, records: Records, options: DataOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or DataOptions()
        self.multi_label = options.multi_label
        self.records, self._facts = examine_all(records, options)
        self.notes = self.records.notes
        check_labels(self.records, self.multi_label)
        self.parts: dict[str, Rows] = split(
            strata_of(self.records.labels, self.multi_label),
            options,
            self.records.parts,
            self.records.groups,
            self.records.where,
        )
        if not options.allow_overlap:
            refuse_twins(self.records.ids, self._facts, self.parts)
        self.classes = find_classes(self.records, self.parts, options)
        self.labels = encode(self.records.labels, self.classes, self.multi_label)
        self.channels, self.image_size = self._find_shape()
        self._images = self._load()
        self.mean, self.std = self._normalisation()

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any,
        *,
        parts: Sequence[str] | None = None,
        groups: Sequence[Any] | None = None,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> ImageData:
        """From arrays or tensors [N, H, W], [N, C, H, W] or [N, H, W, C] and N labels.

        `parts` says train, val or test, `groups` what stays together, for each picture; the
        rest are DataOptions. `classes` names labels that are numbers.
        """
        names = label_names(labels, "labels", classes)
        records = sources.from_arrays(images, names, parts=parts, groups=groups)
        records.classes = None if classes is None else list(classes)
        return cls(records, DataOptions(**options))

    @classmethod
    def from_path(cls, path: str | Path, **options: Any) -> ImageData:
        """From whatever is at a path; see `DataOptions.path`. The rest are DataOptions."""
        chosen = DataOptions(path=str(path), **options)
        return cls(sources.find(chosen), chosen)

    from_folder = from_csv = from_path

    @classmethod
    def from_hugging_face(cls, dataset: Any, **options: Any) -> ImageData:
        """From a `datasets.Dataset` or `DatasetDict`, or the folder of a saved one."""
        from renshu_tasks.image_classification.hugging_face import from_hugging_face

        if isinstance(dataset, str | Path):
            return cls.from_path(dataset, **options)
        chosen = DataOptions(**options)
        return cls(from_hugging_face(dataset, chosen), chosen)

    @classmethod
    def from_dataset(cls, train: Any, test: Any = None, **options: Any) -> ImageData:
        """From map-style data sets of (picture, label), such as torchvision's."""
        records = sources.from_dataset(train)
        if test is not None:
            both = [records, sources.from_dataset(test)]
            records = sources.joined(both, ["train", "test"], "data sets")
        return cls(records, DataOptions(**options))

    # ---- loaders

    def dataset(self, part: str) -> Pictures:
        """The samples of "train", "val" or "test"; only training samples carry a seed."""
        self._require(part)
        rows, seeded = self.parts[part], part == "train"
        if self._images is not None:
            return PicturesInMemory(self._images, self.labels, rows, seeded=seeded)
        return PicturesOnDisk(self.records, self.labels, rows, seeded=seeded, **self._reading)

    def train_dataloader(self) -> DataLoader[Any]:
        balanced = self.options.sampler == "balanced"
        sampler = None
        if balanced:
            weights = self._sample_weights()
            sampler = WeightedRandomSampler(weights.tolist(), len(weights))
        # a last batch of one would stop batch normalisation
        drop_last = len(self.parts["train"]) % self.batch_size == 1
        return self._loader("train", shuffle=not balanced, sampler=sampler, drop_last=drop_last)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader("test" if len(self.parts["test"]) else "val")

    def _loader(self, part: str, **arguments: Any) -> DataLoader[Any]:
        workers = self.num_workers
        return DataLoader(
            self.dataset(part),
            batch_size=self.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=None if self._images is None else as_batch,
            **arguments,
        )

    @cached_property
    def defaults(self) -> Defaults:
        """What the table says for this device, these pictures and how many they are."""
        family = "small" if max(self.image_size) <= 64 else "large"
        return resolve(describe_device(), family, max(self.image_size), len(self.parts["train"]))

    @property
    def batch_size(self) -> int:
        chosen = self.options.batch_size
        return self.defaults.batch_size if chosen is None else chosen

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self.options = dataclasses.replace(self.options, batch_size=value)  # checks it

    @property
    def num_workers(self) -> int:
        """Processes that load; none for pictures in memory, where they would only cost."""
        if self.options.num_workers is not None:
            return self.options.num_workers
        return 0 if self._images is not None else self.defaults.num_workers

    # ---- what is known of the data

    @property
    def class_counts(self) -> dict[str, dict[str, int]]:
        """Pictures by part and class."""
        return {part: self._count(rows) for part, rows in self.parts.items()}

    def class_weights(self) -> Tensor:
        """Float32 [K] from the training part: N / (K × pictures of the class), mean 1 a sample.

        For multi-label data the weight of a class's positives: pictures without / with it.
        """
        counts = self._train_counts()
        total = len(self.parts["train"])
        weights = (total - counts) / counts if self.multi_label else total / (len(counts) * counts)
        return weights.float()

    @property
    def split_ids(self) -> dict[str, list[str]]:
        """Identity of every picture by part: path below the root, or row."""
        return {part: [self.records.ids[row] for row in rows] for part, rows in self.parts.items()}

    def fingerprint(self) -> dict[str, Any]:
        """By part: files, bytes, ids, and SHA-256 over every id, size, content and label."""
        return {part: self._fingerprint(rows) for part, rows in self.parts.items()}

    def sample(self, part: str, number: int) -> dict[str, Any]:
        """For a report: image uint8 [C, H, W], id, and the names of the labels."""
        self._require(part)
        row = int(self.parts[part][number])
        return {
            "image": self.dataset(part).image(number),
            "id": self.records.ids[row],
            "labels": list(self.records.labels[row]),
        }

    def summary(self) -> list[str]:
        """Source, parts, shape, imbalance, and what was decided or left out: a line each."""
        counts, (height, width) = self.class_counts["train"], self.image_size
        sizes = ", ".join(f"{part} {len(rows)}" for part, rows in self.parts.items())
        few, many = min(counts.values()), max(counts.values())
        channels = "1 channel" if self.channels == 1 else f"{self.channels} channels"
        imbalance = (
            f"imbalance in training: {many / few:.1f} (largest {many}, smallest {few} pictures)"
        )
        return [
            f"{self.records.where}: {len(self.records)} pictures ({sizes})",
            f"pictures {height}×{width}, {channels}; {len(self.classes)} classes",
            *([imbalance] if many >= _UNEQUAL * few else []),
            *(f"note: {note}" for note in self.notes),
        ]

    def describe(self) -> str:
        """The summary, and the pictures of each class in each part."""
        counts = self.class_counts
        each = (
            f"  {name}: " + ", ".join(f"{part} {counts[part][name]}" for part in PARTS)
            for name in self.classes
        )
        return "\n".join([*self.summary(), *each])

    # ---- how it is found out

    def _find_shape(self) -> tuple[int, tuple[int, int]]:
        """Channels and (H, W); what is chosen automatically is chosen by the training part."""
        options, pictures = self.options, self.records.pictures
        train = [self._facts[row] for row in self.parts["train"]]
        channels = options.channels
        if channels == "auto" and isinstance(pictures, Tensor):
            channels = pictures.shape[1]
        elif channels == "auto":
            channels = 1 if all(one.grey for one in train) else 3
        if options.image_size is not None:
            return channels, (options.image_size, options.image_size)
        sizes = {(one.height, one.width) for one in train}
        if len(sizes) == 1 and max(next(iter(sizes))) <= _OWN_SIZE:
            return channels, sizes.pop()
        self.notes.append(f"pictures of different or large size, cut to {_USUAL_SIZE} pixels")
        return channels, (_USUAL_SIZE, _USUAL_SIZE)

    @property
    def _reading(self) -> dict[str, Any]:
        return {
            "channels": self.channels,
            "size": self.image_size,
            "max_pixels": self.options.max_pixels,
        }

    def _load(self) -> Tensor | None:
        """All pictures, uint8 [N, C, H, W], if they fit in the memory that was allowed."""
        if isinstance(self.records.pictures, Tensor):
            return scaled(self.records.pictures, self.channels, self.image_size)
        needed = len(self.records) * self.channels * self.image_size[0] * self.image_size[1]
        if needed > self.options.in_memory_mb * 2**20:
            return None
        return read_all(self.records, range(len(self.records)), **self._reading)

    def _normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel: as given, or of the training part."""
        mean, std = self.options.mean, self.options.std
        if mean == "auto" or std == "auto":
            found = moments(self._training_images())
            mean = found[0] if mean == "auto" else mean
            std = [value or 1.0 for value in found[1]] if std == "auto" else std
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != self.channels or (name == "std" and min(values) <= 0):
                above = " above 0" if name == "std" else ""
                raise ConfigError(
                    f"{values} does not fit the channels of the pictures: {self.channels}",
                    where=f"data.{name}",
                    allowed=f"{self.channels} numbers{above}, or auto",
                )
        return list(mean), list(std)

    def _training_images(self) -> Any:
        rows = self.parts["train"]
        if self._images is not None:
            return (self._images[some] for some in torch.from_numpy(rows).split(2048))
        some = rows[:: -(-len(rows) // _MEASURED)]
        if len(some) < len(rows):
            self.notes.append(f"mean and deviation are those of {len(some)} training pictures")
        return (read(self.records, row, **self._reading)[None] for row in some.tolist())

    def _count(self, rows: Rows) -> dict[str, int]:
        counts = Counter(name for row in rows for name in self.records.labels[row])
        return {name: counts[name] for name in self.classes}

    def _train_counts(self) -> Tensor:
        return torch.tensor(list(self._count(self.parts["train"]).values()), dtype=torch.float64)

    def _sample_weights(self) -> Tensor:
        """Float64 [N] for the balanced sampler: of a picture's labels, the rarest one counts."""
        inverse = 1 / self._train_counts()
        labels = self.labels[self.parts["train"]]
        if not self.multi_label:
            return inverse[labels]
        # a picture without a label weighs as one of the commonest class
        return (labels.double() * inverse).amax(1).clamp_min(float(inverse.min()))

    def _fingerprint(self, rows: Rows) -> dict[str, Any]:
        ids = [self.records.ids[row] for row in rows]
        total = hashlib.sha256()
        for row in sorted(rows, key=lambda row: self.records.ids[row]):
            facts = self._facts[row]
            entry = (
                self.records.ids[row],
                str(facts.size),
                facts.sha256,
                *self.records.labels[row],
            )
            total.update("\0".join(entry).encode("utf-8", "surrogateescape") + b"\n")
        size = sum(self._facts[row].size for row in rows)
        return {"files": len(ids), "bytes": size, "sha256": total.hexdigest(), "ids": ids}

    def _require(self, part: str) -> None:
        if part not in self.parts or not len(self.parts[part]):
            have = [name for name, rows in self.parts.items() if len(rows)]
            raise DataError(
                f"there is no {part} part",
                where=self.records.where,
                allowed=", ".join(have),
                mend="--data.test_share 0.2" if part == "test" else near(part, have),
            )
