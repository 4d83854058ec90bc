"""The data of anomaly detection: one series in three parts, in the order of time."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from renshu.data import DataModule
from renshu.errors import ConfigError, DataError
from renshu.messages import say
from renshu_tasks.anomaly.defaults import Defaults, describe_device, resolve
from renshu_tasks.anomaly.demo import DEFAULT, load_demo
from renshu_tasks.anomaly.options import DataOptions
from renshu_tasks.anomaly.readers import check_train, read_series
from renshu_tasks.anomaly.series import Series, Values, events_of
from renshu_tasks.anomaly.windows import loader

if TYPE_CHECKING:
    from renshu_tasks.anomaly.detectors.neural import NeuralDetector
    from renshu_tasks.anomaly.options import AnomalyOptions

PARTS = ("train", "val", "test")


def build(options: AnomalyOptions) -> SeriesData:
    """The series that the options name, checked, split and summed up on the terminal.

    Raises DataError or ConfigError, with the file, row or option at fault.
    """
    chosen = options.data
    if chosen.path is None:
        series = load_demo(chosen.series or DEFAULT)
        if chosen.train_end is not None:
            series = replace(series, train_end=chosen.train_end)
        check_train(series, chosen)
    else:
        series = read_series(chosen.path, chosen)
    data = SeriesData(series, chosen)
    for line in data.summary():
        say(line, once=True)
    return data


class SeriesData(DataModule):
    """One series: learned from, held out normal points after that, and the rest, to be scored.

    Attributes:
        series: the whole.
        parts: (start, stop) rows of "train", "val" and "test".
        detector: set by the module where a network is trained: its scaling and windows.
    """

    def __init__(self, series: Series, options: DataOptions | None = None) -> None:
        super().__init__()
        self.series = series
        self.options = options = options or DataOptions()
        held = int(np.ceil(options.val_share * series.train_end))
        cut = series.train_end - held
        self.parts = {
            "train": (0, cut),
            "val": (cut, series.train_end),
            "test": (series.train_end, len(series)),
        }
        self.detector: NeuralDetector | None = None
        if cut < 2:
            raise DataError(
                f"{series.train_end} training points, of which {held} are held out, are too few",
                where=series.source,
                mend="a larger --data.train_end",
            )

    @property
    def train(self) -> Values:
        """float64 [N, C]: what detectors and scalings are fitted on."""
        start, stop = self.parts["train"]
        return self.series.values[start:stop]

    def part(self, name: str, context: int = 0) -> Series:
        """A part of the series, with up to `context` points before it.

        Raises DataError for a part that is empty.
        """
        start, stop = self.parts[name]
        if start == stop:
            raise DataError(
                f"there is no {name} part",
                where=self.series.source,
                allowed=", ".join(part for part, (a, b) in self.parts.items() if a < b),
                mend="a smaller --data.train_end",
            )
        return self.series.part(max(start - context, 0), stop)

    # ---- loaders

    def train_dataloader(self) -> DataLoader[Any]:
        """Shuffled windows for a network; else the training part as one batch."""
        if self.detector is None:
            return DataLoader([torch.from_numpy(self.train)], batch_size=None)
        return loader(self._scaled("train"), self.detector.memory, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | None:
        """Windows of the held-out part, for a network's choice of the epoch."""
        if self.detector is None:
            return None
        return loader(self._scaled("val"), self.detector.memory, self.batch_size, shuffle=False)

    def _scaled(self, part: str) -> torch.Tensor:
        assert self.detector is not None
        start, stop = self.parts[part]
        if stop - start < self.detector.memory:
            raise DataError(
                f"the {part} part has {stop - start} points",
                where=self.series.source,
                allowed=f"{self.detector.memory} or more for windows of {self.detector.window}",
                mend="a smaller --model.window, a longer --data.train_end or another"
                " --data.val_share",
            )
        return self.detector.scaled(self.series.values[start:stop])

    @property
    def defaults(self) -> Defaults:
        """What the table says for this device and so many windows."""
        return resolve(describe_device(), len(self.train))

    @property
    def batch_size(self) -> int:
        return self.options.batch_size or self.defaults.batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self.options = replace(self.options, batch_size=value)  # checks it

    # ---- what is known of the data

    def fingerprint(self) -> dict[str, Any]:
        """By part: rows, bytes and SHA-256 over values, labels and time stamps."""
        found = {}
        for name, (start, stop) in self.parts.items():
            part = self.series.part(start, stop)
            arrays = [part.values, part.labels, part.times]
            content = b"".join(np.ascontiguousarray(a).tobytes() for a in arrays if a is not None)
            found[name] = {
                "files": 1,
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "ids": [f"{self.series.name}[{start}:{stop}]"],
            }
        return found

    def summary(self) -> list[str]:
        """Source, parts, gaps and imbalance: a line each."""
        series, (start, stop) = self.series, self.parts["test"]
        sizes = ", ".join(f"{name} {b - a}" for name, (a, b) in self.parts.items())
        channels = (
            "1 channel" if series.values.shape[1] == 1 else f"{len(series.channels)} channels"
        )
        lines = [f"{series.source or series.name}: {len(series)} points ({sizes}), {channels}"]
        if series.times is not None:
            lines.append(f"a point every {series.period:g} s")
        if series.filled is not None:
            lines.append(f"note: {int(series.filled.sum())} missing points hold the value before")
        if series.labels is None:
            lines.append("no labels: scores and alarms are shown, nothing can be measured")
        elif stop > start:
            labels = series.labels[start:stop]
            lines.append(
                f"imbalance in the test part: {labels.mean():.2%} of the points are anomalous,"
                f" in {len(events_of(labels))} events"
            )
        return lines


def require_one_channel(data: SeriesData, name: str) -> None:
    """Raises ConfigError where a detector of one channel is given several."""
    if len(data.series.channels) > 1:
        raise ConfigError(
            f"{name} scores one channel, the series has {len(data.series.channels)}",
            where="model.name",
            allowed="a multivariate detector, such as residual_pca or cnn",
            mend=f"--data.columns '[{data.series.channels[0]}]'",
        )
