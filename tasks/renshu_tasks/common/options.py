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


def check_val_share(share: float) -> None:
    """Refuse a share that leaves no validation part, or nothing else."""
    if not 0 < share < 1:
        raise ConfigError(
            f"{share} is out of range",
            where="data.val_share",
            allowed="above 0 and below 1: there is always a validation part",
        )


def check_test_share(share: float | None) -> None:
    """Refuse a share that leaves nothing to train on; None is what the source has."""
    if share is not None and not 0 <= share < 1:
        raise ConfigError(
            f"{share} is out of range",
            where="data.test_share",
            allowed="from 0 (no test part) to below 1",
        )
