"""A project appears whole or not at all."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

from renshu.errors import ConfigError
from renshu_templates.render import Files

_OCCUPIED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)


def check_free(target: Path) -> None:
    """Raise ConfigError if a project cannot be put there."""
    if target.is_symlink() or (target.exists() and not _is_empty(target)):
        raise _occupied(target)
    if not target.parent.is_dir():
        raise ConfigError(
            "the folder above does not exist", where=target.parent, mend="make it, or --into FOLDER"
        )


def create(files: Files, target: Path) -> None:
    """Write all files beside `target` and rename the whole folder once."""
    check_free(target)
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
            root = Path(temporary, target.name)
            for path, content in files.items():
                file = root / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            root.rename(target)
    except OSError as error:
        if error.errno in _OCCUPIED:  # by another generation, a moment ago
            raise _occupied(target) from error
        said = f"nothing can be written here: {error.strerror}"
        raise ConfigError(said, where=target.parent, mend="--into FOLDER") from error


def _is_empty(target: Path) -> bool:
    return target.is_dir() and not any(target.iterdir())


def _occupied(target: Path) -> ConfigError:
    return ConfigError(
        "something is there already",
        where=target,
        allowed="a new name, or an empty folder",
        mend="another name; a project that is there moves on with `renshu upgrade`",
    )
