"""The errors a user sees. Each says what is wrong, where, what is allowed and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RenshuError(Exception):
    """Base of all errors that renshu raises on purpose.

    Args:
        what: the fault in one sentence.
        where: file, row, key or line that is at fault.
        allowed: what would have been accepted.
        mend: what to do, if possible as a command or option that can be pasted.
    """

    exit_code = 1
    """What a command line ends with: 2 for wrong input, 1 for a run that failed."""

    def __init__(
        self,
        what: str,
        *,
        where: object | None = None,
        allowed: object | None = None,
        mend: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.allowed = None if allowed is None else str(allowed)
        self.mend = mend
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [self.what]
        for label, value in (("where", self.where), ("allowed", self.allowed), ("mend", self.mend)):
            if value is not None:
                lines.append(f"  {label + ':':<9}{value}")
        return "\n".join(lines)


class ConfigError(RenshuError):
    """An option, argument or method is wrong; found before anything starts."""

    exit_code = 2


class DataError(RenshuError):
    """The user's data cannot be used as it is."""

    exit_code = 2


class CheckpointError(RenshuError):
    """A checkpoint cannot be written, read or matched with the model."""

    exit_code = 2


class RunError(RenshuError):
    """A run that had started cannot go on."""


class NonFiniteError(RunError):
    """A loss, gradient norm or parameter became NaN or infinite."""


def near(name: str, names: Iterable[str]) -> str | None:
    """`did you mean 'x'?` for a mistyped name, or None if nothing is close."""
    found = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"did you mean {found[0]!r}?" if found else None


def unknown(kind: str, name: object, names: Iterable[str], where: object = None) -> ConfigError:
    """The error for a name that is none of `names`; it offers the nearest."""
    known = list(names)
    mend = near(str(name), known)
    return ConfigError(
        f"there is no {kind} {name!r}", where=where, allowed=", ".join(known) or "none", mend=mend
    )
