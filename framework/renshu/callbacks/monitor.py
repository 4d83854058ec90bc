"""What callbacks that watch a metric share: its value, what is better, a key nobody logs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from renshu.errors import ConfigError, near

if TYPE_CHECKING:
    from renshu.trainer import Trainer


def check_mode(mode: str, where: str) -> None:
    """Refuse a mode that is neither min nor max."""
    if mode not in ("min", "max"):
        raise ConfigError(f"unknown mode {mode!r}", where=where, allowed="min, max")


def better(mode: str, score: float, than: float) -> bool:
    """Whether `score` is strictly better; a NaN is never better, and anything else beats it."""
    if math.isnan(score) or math.isnan(than):
        return not math.isnan(score)
    return score < than if mode == "min" else score > than


def monitored(trainer: Trainer, key: str) -> float | None:
    """The newest value of a metric, read from the device; None if it was not logged yet."""
    value = trainer.callback_metrics.get(key)
    return None if value is None else float(value)


def validates(trainer: Trainer) -> bool:
    """Whether this fit has validation batches at all."""
    return sum(trainer.num_val_batches) > 0


def validates_at_epoch_end(trainer: Trainer) -> bool:
    """Whether validation runs exactly once an epoch, at its end (or never)."""
    options: Any = trainer.options
    share = options.val_check_interval
    whole = share is None or (isinstance(share, float) and share == 1.0)
    each = options.check_val_every_n_epoch == 1
    return not validates(trainer) or (options.validate_every is None and whole and each)


class KeyWatch:
    """Decides when a monitored key that nobody logs is an error.

    The key may come from a validation or from the end of an epoch, so it is missing once an epoch
    has ended and, if there is validation, a validation too; after the validation alone if its name
    begins with "val" or an epoch has no known end. A resumed fit starts anew: it needs the key no
    earlier than a fresh one.
    """

    def __init__(self, key: str, owner: str) -> None:
        self.key = key
        self.owner = owner
        self.start()

    def start(self) -> None:
        """A fit begins."""
        self._names: set[str] = set()
        self._validated = False

    def see(self, trainer: Trainer) -> None:
        """Remember what is logged by now."""
        self._names.update(trainer.callback_metrics)

    def validated(self, trainer: Trainer) -> None:
        """A validation ended, or the sanity check."""
        self.see(trainer)
        self._validated = self._validated or not trainer.sanity_checking

    def error(self, trainer: Trainer, *, after_epoch: bool) -> ConfigError | None:
        """What to raise now; None while the key is there or may still come."""
        if self.key in self._names:
            return None
        endless = math.isinf(trainer.num_training_batches)
        if not after_epoch and not self.key.startswith("val") and not endless:
            return None
        if not self._validated and (validates(trainer) or not after_epoch):
            return None
        self.see(trainer)
        if self.key in self._names:
            return None
        names = sorted(self._names)
        return ConfigError(
            f"the metric {self.key!r} was not logged",
            where=f"{self.owner}(monitor={self.key!r})",
            allowed=", ".join(names) or "no metric was logged",
            mend=near(self.key, names) or f"self.log({self.key!r}, value) in validation_step",
        )
