"""One kind of interval: to validate, schedule, log, save and stop by. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from renshu.errors import ConfigError

UNITS = ("steps", "batches", "samples", "epochs", "s", "min", "h")
_SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


@dataclass
class Progress:
    """How far a fit has come. Saved in every checkpoint; all counts start at 0 with the fit.

    `step` counts optimiser updates (one a batch that updated, whatever the number of optimisers),
    `batch` the micro-batches of the current epoch, `batches` those of the whole fit.
    """

    epoch: int = 0
    epochs: int = 0
    batch: int = 0
    batches: int = 0
    step: int = 0
    samples: int = 0
    epoch_samples: int = 0
    seconds: float = 0.0
    skipped: int = 0


@dataclass(frozen=True)
class Interval:
    """`"100 steps"`, `"500 batches"`, `"10000 samples"`, `"2 epochs"`, `"30 min"`.

    A step is an optimiser step. The interval is due whenever its count reaches a multiple of
    `size`, counted from the start of the fit and never at 0.
    """

    size: float
    unit: str

    @classmethod
    def parse(cls, value: str | Interval, where: str) -> Interval:
        """Read an interval; raises ConfigError with the allowed units when it cannot be read."""
        if isinstance(value, Interval):
            return value
        match = _PATTERN.fullmatch(value) if isinstance(value, str) else None
        unit = _unit(match.group(2)) if match else None
        size = float(match.group(1)) if match else 0.0
        if unit is None or size <= 0 or (unit not in _SECONDS and size != int(size)):
            raise ConfigError(
                f"{value!r} is not an interval",
                where=where,
                allowed="a number above 0 and one of: " + ", ".join(UNITS),
                mend='for example "100 steps", "2 epochs" or "30 min"',
            )
        return cls(size, unit)

    @property
    def is_clock(self) -> bool:
        """Clock intervals depend on the machine's speed, so a run with them does not repeat."""
        return self.unit in _SECONDS

    def count(self, progress: Progress) -> int:
        """How many times the interval has become due so far."""
        if self.unit in _SECONDS:
            return int(progress.seconds / (self.size * _SECONDS[self.unit]))
        return int(getattr(progress, _FIELDS[self.unit]) // self.size)

    def batches_until(self, progress: Progress) -> float:
        """After how many more batches, at the earliest, it is due again."""
        if self.unit == "epochs":
            return float("inf")
        if self.unit in ("steps", "batches"):
            done = getattr(progress, _FIELDS[self.unit])
            return self.size - done % self.size
        return 1

    def __str__(self) -> str:
        size = int(self.size) if self.size == int(self.size) else self.size
        return f"{size} {self.unit}"


_FIELDS = {"steps": "step", "batches": "batches", "samples": "samples", "epochs": "epochs"}
_SPELLINGS = {"step": "steps", "batch": "batches", "sample": "samples", "epoch": "epochs"}
_SPELLINGS |= {"sec": "s", "second": "s", "seconds": "s", "minute": "min", "minutes": "min"}
_SPELLINGS |= {"hour": "h", "hours": "h"}


def _unit(word: str) -> str | None:
    word = _SPELLINGS.get(word, word)
    return word if word in UNITS else None
