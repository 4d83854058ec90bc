"""The parts of a data set, and the names that sources give them."""

from collections.abc import Mapping

from renshu.errors import DataError

PARTS = ("train", "val", "test")
PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def part_of(name: str, where: str, names: Mapping[str, str] = PART_NAMES) -> str:
    """train, val or test for any usual spelling of it; raises DataError for others."""
    if name.strip().lower() not in names:
        raise DataError(
            f"{name!r} is not a part of a data set", where=where, allowed=", ".join(names)
        )
    return names[name.strip().lower()]
