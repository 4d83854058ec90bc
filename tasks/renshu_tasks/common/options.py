"""The check that every task's options go through. Imports neither torch nor numpy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from renshu.errors import ConfigError, near


def check(options: Any, section: str, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuse numbers out of their range and names that are not among a field's choices.

    Args:
        options: a dataclass; a field of type Literal lists its choices.
        section: what the command line calls it, such as "data".
        ranges: field → (lowest, highest) allowed number, also of each number in a list.

    Raises:
        ConfigError: with the key, the value and what is allowed.
    """
    for name, hint in get_type_hints(type(options)).items():
        value, key = getattr(options, name), f"{section}.{name}"
        if get_origin(hint) is Literal and value not in get_args(hint):
            choices = [str(choice) for choice in get_args(hint)]
            raise ConfigError(
                f"there is no {value!r}",
                where=key,
                allowed=", ".join(choices),
                mend=near(str(value), choices),
            )
        low, high = ranges.get(name, (-math.inf, math.inf))
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int | float) and not low <= number <= high:
                allowed = f"{low} or more" if high == math.inf else f"{low} to {high}"
                raise ConfigError(f"{number} is out of range", where=key, allowed=allowed)
