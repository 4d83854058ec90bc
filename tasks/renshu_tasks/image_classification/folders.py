"""Reads an image folder: a folder a class, or train, val and test folders of class folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from renshu.errors import DataError
from renshu_tasks.common.files import inside
from renshu_tasks.common.parts import PART_NAMES
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.readers import SUFFIXES
from renshu_tasks.image_classification.records import Records

_DEEPEST = 32


def from_folder(root: Path, options: DataOptions) -> Records:
    """Every picture below the class folders, sorted; files of other kinds are noted.

    Raises DataError for fewer than two classes, a class without pictures, parts that stand beside
    other folders, and links that lead out of `root` unless `allow_outside`.
    """
    files: list[Path] = []
    records = Records([], [], files, str(root))
    given: list[str] = []
    for part, folder in _parts(root, _folders(root, root, options)).items():
        for label, file in _pictures(root, folder, options, records.notes):
            files.append(file)
            records.ids.append(file.relative_to(root).as_posix())
            records.labels.append((label,))
            given.append(part)
    records.parts = given if any(given) else None
    return records


def _parts(root: Path, folders: list[Path]) -> dict[str, Path]:
    """The folder of each part; {"": root} where the folders are classes."""
    named = [folder for folder in folders if folder.name.lower() in PART_NAMES]
    parts = {PART_NAMES[folder.name.lower()]: folder for folder in named}
    if "train" not in parts or (len(parts) == 1 < len(folders)):
        return {"": root}
    if len(parts) < len(folders):
        raise DataError(
            f"it is not clear which folders are parts: {', '.join(f.name for f in folders)}",
            where=root,
            allowed="class folders alone; or one train folder, with a val and a test folder",
            mend="move the other folders away",
        )
    return parts


def _pictures(
    root: Path, folder: Path, options: DataOptions, notes: list[str]
) -> Iterable[tuple[str, Path]]:
    """Class and file of every picture of one part."""
    classes = _folders(root, folder, options)
    if len(classes) < 2:
        raise DataError(
            f"the folder has {len(classes)} class folder{'s' * (len(classes) != 1)}",
            where=folder,
            allowed="two or more folders, one a class, with the class's pictures",
            mend="for example pictures/cat/1.jpg and pictures/dog/1.jpg",
        )
    for name in classes:
        found = sorted(_files(root, name, options))
        pictures = [file for file in found if file.suffix.lower() in SUFFIXES]
        if not pictures:
            raise DataError(
                "the class folder holds no picture",
                where=name,
                allowed=f"files ending {' '.join(SUFFIXES)}",
                mend="add pictures, or remove the folder",
            )
        if len(pictures) < len(found):
            other = len(found) - len(pictures)
            what = "1 file is no picture" if other == 1 else f"{other} files are no pictures"
            notes.append(f"{name}: {what}, left out")
        yield from ((name.name, file) for file in pictures)


def _folders(root: Path, folder: Path, options: DataOptions) -> list[Path]:
    return [entry for entry in _entries(root, folder, options) if entry.is_dir()]


def _files(root: Path, folder: Path, options: DataOptions, depth: int = 0) -> Iterable[Path]:
    for entry in _entries(root, folder, options):
        if not entry.is_dir():
            yield entry
        elif depth == _DEEPEST or (entry.is_symlink() and inside(entry, folder)):
            raise DataError(
                "the folders are nested without end",
                where=entry,
                allowed=f"{_DEEPEST} levels, and no link back to a folder that it is in",
            )
        else:
            yield from _files(root, entry, options, depth + 1)


def _entries(root: Path, folder: Path, options: DataOptions) -> list[Path]:
    """What is in a folder, sorted, without hidden entries; no link may lead out of the root."""
    entries = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    for entry in entries:
        if entry.is_symlink() and not options.allow_outside and not inside(root, entry):
            raise DataError(
                "the link leads out of the data folder",
                where=entry,
                mend="copy the file, or --data.allow_outside true",
            )
    return entries
