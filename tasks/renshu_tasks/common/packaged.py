"""Real data that installed packages bring: found without importing them, checked by SHA-256."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

from renshu.errors import DataError


def packaged(package: str, inside: str, missing: str, mend: str) -> Path:
    """A file or folder of an installed package, by its path inside of it.

    Raises DataError, saying what is `missing` and how to `mend` it, where the package is not.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(missing, mend=mend)
    return Path(spec.submodule_search_locations[0]) / inside


def checked(file: Path, sha256: str, said: str, mend: str) -> Path:
    """The file itself; raises DataError with `said` for another content, or none."""
    if file.is_file():
        with file.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() == sha256:
                return file
    raise DataError(said, where=file, allowed=f"SHA-256 {sha256}", mend=mend)
