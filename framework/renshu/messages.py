"""What renshu tells the user besides errors: short lines on stderr, some of them only once."""

from __future__ import annotations

import sys
from collections.abc import Callable

spelling: Callable[[str], str] = str
"""How options are written in messages: as Python's arguments, or as the command line's flags."""

silent = False
"""True in all processes of a run but the first."""

_said: set[str] = set()


def say(text: str, *, once: bool = False) -> None:
    """Print a line on stderr; with `once`, the same text only the first time in this process."""
    if silent or (once and text in _said):
        return
    _said.add(text)
    sys.stderr.write(f"renshu: {spelling(text)}\n")
    sys.stderr.flush()
