"""Hyper-parameters: the arguments of `__init__`, kept, saved in checkpoints and sent to loggers."""

from __future__ import annotations

import copy
import inspect
import sys
import warnings
from collections.abc import Iterable
from types import FrameType
from typing import Any

from torch import nn

from renshu.checkpoints.codec import encode
from renshu.errors import CheckpointError, ConfigError

LIMIT = 1_000_000
"""Bytes that the saved hyper-parameters may take: they describe a model, they are not its data."""

_ALLOWED = "numbers, strings, lists, dicts, paths, small tensors and arrays"


class AttributeDict(dict[str, Any]):
    """A dict whose items are attributes as well."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"there is no hyper-parameter {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class HyperParameters:
    """`save_hyperparameters` and `hparams`, for Module and DataModule."""

    @property
    def hparams(self) -> AttributeDict:
        """What `save_hyperparameters` kept."""
        return self.__dict__.setdefault("_hparams", AttributeDict())

    @property
    def hparams_initial(self) -> AttributeDict:
        """The hyper-parameters as they were first saved."""
        return self.__dict__.get("_hparams_initial", AttributeDict())

    def save_hyperparameters(
        self,
        *args: Any,
        ignore: str | Iterable[str] | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Keep the arguments of the calling `__init__`.

        Args:
            args: names of arguments to keep (all when none is given), or one dict of values.
            ignore: names to leave out.
            frame: whose arguments; the caller's unless given.
            logger: send them to the loggers.

        Values are plain: numbers, strings, lists, dicts, paths, tensors and arrays of a small size.
        An nn.Module stays in `hparams` but out of checkpoints (its weights are saved anyway), with
        one message; anything else that cannot be saved raises ConfigError with its name.
        """
        if args and not isinstance(args[0], str):
            values = dict(args[0] if hasattr(args[0], "keys") else vars(args[0]))
        else:
            values = _arguments(frame or sys._getframe(1))
            values = {name: values[name] for name in args or values}
        ignored = {ignore} if isinstance(ignore, str) else set(ignore or ())
        kept = {name: value for name, value in values.items() if name not in ignored}
        self.__dict__["_hparams_to_loggers"] = logger
        self.__dict__["_hparams_left_out"] = _check(kept, type(self).__name__)
        self.hparams.update(kept)
        self.__dict__.setdefault("_hparams_initial", AttributeDict(copy.deepcopy(kept)))

    def hyper_parameters_to_save(self) -> dict[str, Any]:
        """`hparams` without the modules among them."""
        left_out = self.__dict__.get("_hparams_left_out", ())
        return {name: value for name, value in self.hparams.items() if name not in left_out}

    def hyper_parameters_to_log(self) -> dict[str, Any]:
        """The same for the loggers; nothing after `save_hyperparameters(logger=False)`."""
        wanted = self.__dict__.get("_hparams_to_loggers", True)
        return self.hyper_parameters_to_save() if wanted else {}


def _arguments(frame: FrameType) -> dict[str, Any]:
    """Arguments of the `__init__` that runs in `frame`, and of those that called it by super()."""
    found: dict[str, Any] = {}
    owner, current = frame.f_locals.get("self"), frame
    while current is not None and current.f_code.co_name == "__init__":
        names, _, keywords, values = inspect.getargvalues(current)
        if values.get("self") is not owner:
            break
        found |= {name: values[name] for name in names if name != "self"}
        found |= values[keywords] if keywords else {}
        current = current.f_back
    return found


def _check(values: dict[str, Any], owner: str) -> frozenset[str]:
    """Names that stay out of checkpoints; raises for what can be neither saved nor rebuilt."""
    modules = frozenset(name for name, value in values.items() if isinstance(value, nn.Module))
    if modules:
        said = f"{owner}: {', '.join(sorted(modules))} is an nn.Module and is not saved as a "
        said += "hyper-parameter (its weights are); give it to load_from_checkpoint again, or use "
        warnings.warn(f"{said}save_hyperparameters(ignore={sorted(modules)})", stacklevel=4)
    for name in values.keys() - modules:
        mend = f"save_hyperparameters(ignore=[{name!r}])"
        try:
            text, tensors = encode(values[name], name)
        except CheckpointError as error:
            said = f"hyper-parameter {error.where or name!r} cannot be saved"
            where = f"{owner}({name}=…): {type(values[name]).__name__}"
            raise ConfigError(said, where=where, allowed=_ALLOWED, mend=mend) from error
        size = sum(t.nbytes for t in tensors.values()) + len(str(text))
        if size > LIMIT:
            said = f"hyper-parameter {name!r} takes {size:,} bytes"
            allowed = f"{LIMIT:,} bytes; data belongs in a DataModule"
            raise ConfigError(said, where=owner, allowed=allowed, mend=mend)
    return modules
