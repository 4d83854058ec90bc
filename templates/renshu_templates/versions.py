"""Templates of earlier releases: what a project was made from can be drawn again."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from renshu.errors import ConfigError

FOLDER = "versions"
"""Beside the templates: an archive for each release before this one, `<version>.zip`."""


@contextmanager
def folder_of(current: Path, version: str, asked: str) -> Iterator[Path]:
    """The folder of a template as it was in the release `asked`; `version` is the current one.

    Raises ConfigError for a version that is newer, or that this release does not bring along.
    """
    if asked == version:
        yield current
        return
    found = {file.stem: file for file in (current.parent / FOLDER).glob("*.zip")}
    if asked not in found:
        newer = _order(asked) > _order(version)
        why = "newer than" if newer else "not among those that are known to"
        mend = f'pip install "renshu=={asked}"' if not newer else "pip install --upgrade renshu"
        raise ConfigError(
            f"the project was made by renshu {asked}, {why} this renshu {version}",
            allowed=", ".join([*sorted(found, key=_order), version]),
            mend=mend,
        )
    with tempfile.TemporaryDirectory(prefix="renshu-version-") as temporary:
        zipfile.ZipFile(found[asked]).extractall(temporary)
        folder = Path(temporary, current.name)
        if not folder.is_dir():
            raise ConfigError(f"renshu {asked} had no template {current.name!r}")
        yield folder


def freeze(templates: Path, archive: Path) -> None:
    """Write the templates in a folder to an archive: the same bytes for the same templates."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for folder in sorted(path.parent for path in templates.glob("*/template.toml")):
            for path in sorted(folder.rglob("*")):
                if path.is_file() and "__pycache__" not in path.parts:
                    # Links are followed: an archive stands alone.
                    info = zipfile.ZipInfo(path.relative_to(templates).as_posix())
                    file.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)


def _order(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", version)))
