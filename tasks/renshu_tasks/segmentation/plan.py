"""The plan of a data set: everything between a case and its mask but the weights.

It is data: JSON of numbers and of names from fixed lists, whoever wrote the file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from renshu.errors import ConfigError, DataError
from renshu_tasks.segmentation.options import SegmentationOptions

FILE = "plan.json"
"""The plan in a run's folder."""

Normalising = Literal["dataset", "case", "nonzero", "none"]
WIDEST = 320
"""Channels of a level at most."""

NETWORKS = ("dynunet", "unet", "segresnet", "resnet18", "resnet34", "resnet50")


@dataclass(frozen=True)
class Intensity:
    """How one channel is normalised: clipped to low … high, minus mean, divided by std.

    "dataset" does it with these numbers, "case" and "nonzero" with the case's own mean and std.
    """

    kind: Normalising
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True)
class Plan:
    """Everything between a case and its mask but the weights.

    Attributes:
        classes: names by number, the background first.
        intensities: one a channel.
        spacing: millimetres a voxel, in the order right, front, head; rows, columns of pictures.
        patch: voxels, along the same axes.
        batch_size: patches a batch.
        patches: patches an epoch.
        network: one of NETWORKS.
        filters: channels by level, the finest first.
        kernels: kernel by level.
        strides: step from the level above, by level; the first is 1.
        fold: voxels along each axis that become channels before the finest level.
        deep_supervision: the coarser levels learn as well.
        reasons: decision → why, in words.
    """

    classes: tuple[str, ...]
    intensities: tuple[Intensity, ...]
    spacing: tuple[float, ...]
    patch: tuple[int, ...]
    batch_size: int
    patches: int
    network: str
    filters: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    fold: tuple[int, ...]
    deep_supervision: bool
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def axes(self) -> int:
        """2 or 3."""
        return len(self.patch)

    @property
    def divisor(self) -> tuple[int, ...]:
        """What every axis of a patch is a multiple of."""
        return tuple(int(step) for step in np.prod((self.fold, *self.strides), axis=0))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: Any, where: str = "plan") -> Plan:
        """The plan in plain data, such as `to_json` writes; raises DataError for any other."""
        try:
            plan = cls(
                classes=tuple(str(name) for name in values["classes"]),
                intensities=tuple(
                    Intensity(one["kind"], *(float(one[name]) for name in _NUMBERS))
                    for one in values["intensities"]
                ),
                spacing=tuple(float(value) for value in values["spacing"]),
                patch=tuple(int(value) for value in values["patch"]),
                batch_size=int(values["batch_size"]),
                patches=int(values["patches"]),
                network=str(values["network"]),
                filters=tuple(int(value) for value in values["filters"]),
                kernels=tuple(tuple(int(k) for k in level) for level in values["kernels"]),
                strides=tuple(tuple(int(k) for k in level) for level in values["strides"]),
                fold=tuple(int(value) for value in values["fold"]),
                deep_supervision=bool(values["deep_supervision"]),
                reasons={str(name): str(why) for name, why in values["reasons"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"this is no plan: {type(error).__name__}: {error}", where=where
            ) from error
        plan.check(where)
        return plan

    def check(self, where: str) -> None:
        """Raise DataError for a plan whose names or numbers do not go together."""
        axes, levels = len(self.patch), len(self.filters)
        sizes = (
            *self.patch,
            *self.spacing,
            *self.fold,
            *self.filters,
            self.batch_size,
            self.patches,
            levels,
        )
        by_axis = (self.spacing, self.fold, *self.kernels, *self.strides)
        rules = {
            f"a network of {', '.join(NETWORKS)}": self.network in NETWORKS,
            "an intensity of dataset, case, nonzero or none": all(
                one.kind in get_args(Normalising) and one.std > 0 for one in self.intensities
            ),
            "2 or 3 axes everywhere": axes in (2, 3) and all(len(x) == axes for x in by_axis),
            "a kernel and a stride a level": len(self.kernels) == len(self.strides) == levels,
            "numbers above 0": min(sizes) > 0,
            "two classes or more": len(self.classes) > 1,
        }
        for rule, holds in rules.items():
            if not holds:
                raise DataError("the plan cannot be used", where=where, allowed=rule)

    def explain(self) -> str:
        """The decisions in words, for the run folder."""
        lines = [f"# How this data set is segmented\n\nClasses: {', '.join(self.classes)}.\n"]
        lines += [f"- **{name}**: {why}" for name, why in self.reasons.items()]
        return "\n".join(lines) + "\n"


_NUMBERS = ("low", "high", "mean", "std")


def read_plan(file: Path) -> Plan:
    """The plan in a JSON file; raises DataError for a file that is none."""
    try:
        return Plan.from_json(json.loads(file.read_text(encoding="utf-8")), str(file))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the plan cannot be read: {error}", where=file) from error


def read_run_plan(run_dir: Path, options: SegmentationOptions, classes: Sequence[str]) -> Plan:
    """The plan that a run was trained with, for these options and classes.

    Patches and their batch may be others than in training. Raises ConfigError for options that
    name another patch, spacing or network, and DataError for other classes.
    """
    plan, data, model = read_plan(run_dir / FILE), options.data, options.model
    asked: dict[str, tuple[Any, Any]] = {
        "data.patch": (data.patch, list(plan.patch)),
        "data.spacing": (data.spacing, list(plan.spacing)),
        "model.name": (model.name, plan.network),
        "model.width": (model.width and min(model.width, WIDEST), plan.filters[0]),
        "model.depth": (model.depth, len(plan.filters)),
        "model.fold": (model.fold, max(plan.fold)),
    }
    for name, (wanted, trained) in asked.items():
        if wanted not in (None, trained):
            raise ConfigError(
                f"{wanted} is asked for, and the run was trained with {trained}",
                where=name,
                allowed=str(trained),
                mend="train another run",
            )
    if plan.classes != tuple(classes):
        raise DataError(
            f"the classes are {', '.join(classes)}",
            where=run_dir / FILE,
            allowed=", ".join(plan.classes),
        )
    return dataclasses.replace(
        plan,
        batch_size=data.batch_size or plan.batch_size,
        patches=data.patches or plan.patches,
    )
