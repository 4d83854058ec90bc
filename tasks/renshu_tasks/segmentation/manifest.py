"""Reads a CSV table: a row a case, with its images, mask and, if wanted, patient, part, classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from renshu.errors import DataError, near, unknown
from renshu_tasks.common.files import inside, read_rows
from renshu_tasks.common.parts import part_of
from renshu_tasks.segmentation.loading import load_case
from renshu_tasks.segmentation.options import DataOptions
from renshu_tasks.segmentation.readers import stem
from renshu_tasks.segmentation.records import PART_NAMES, Record, Source

_MEND = 'in a spreadsheet: save as "CSV UTF-8"'


def from_csv(path: Path, options: DataOptions) -> Source:
    """The cases of a table in UTF-8, separated by comma, semicolon or tab, with a header.

    Paths are relative to `root`, or to the table's folder. Raises DataError with the line of a
    missing column, a file that is missing or outside, an unknown part or class.
    """
    header, rows = read_rows(path, "table", _MEND)
    columns = _columns(header, path, options)
    root = Path(options.root) if options.root else path.parent
    records: list[Record] = []
    ids: set[str] = set()
    for line, fields in rows:
        at = f"{path}, line {line}"
        if len(fields) != len(header):
            raise DataError(f"the row has {len(fields)} fields", where=at, allowed=len(header))
        row = {what: fields[place].strip() for what, place in columns.items()}
        images = tuple(_file(root, name, at, options) for name in row["image"].split("|"))
        name = row["image"].split("|")[0]
        if name in ids:
            raise DataError(f"{name} is listed twice", where=at)
        ids.add(name)
        if row.get("patient") == "":
            raise DataError(
                "the patient is missing", where=at, mend="name it in every row, or drop the column"
            )
        records.append(
            Record(
                stem(Path(name)) if len({stem(Path(i)) for i in ids}) == len(ids) else name,
                images,
                _file(root, row["mask"], at, options),
                row.get("patient", ""),
                part_of(row["split"], at, PART_NAMES) if row.get("split") else None,
                _annotated(row["annotated"], at, options) if row.get("annotated") else None,
            )
        )
    if not records:
        raise DataError("the table has no rows", where=path)
    return Source(records, partial(load_case, options=options), str(path), options.classes)


def _columns(header: list[str], path: Path, options: DataOptions) -> dict[str, int]:
    """The position of image and mask and, where they are, patient, split and annotated."""
    found = {}
    for what in ("image", "mask", "patient", "split", "annotated"):
        asked = getattr(options, f"{what}_column")
        name = asked or what
        if name in header:
            found[what] = header.index(name)
        elif asked or what in ("image", "mask"):
            raise DataError(
                f"the column {name!r} is missing",
                where=f"{path}, line 1",
                allowed=f"found: {', '.join(header)}",
                mend=near(name, header) or f"--data.{what}_column NAME",
            )
    return found


def _file(root: Path, name: str, at: str, options: DataOptions) -> Path:
    """A file or series folder that a row names; inside the root unless that was allowed."""
    name = name.strip()
    if not name or "\0" in name or "://" in name:
        raise DataError(f"{name[:200]!r} is no path of a local file", where=at)
    file = root / name
    if not options.allow_outside and (Path(name).is_absolute() or not inside(root, file)):
        raise DataError(
            f"{name!r} is outside the data folder",
            where=at,
            allowed=f"files in {root.absolute()}",
            mend="--data.root FOLDER, or --data.allow_outside true if you trust the table",
        )
    if not file.exists():
        raise DataError(f"{name!r} is not there", where=at, allowed=f"files in {root.absolute()}")
    return file


def _annotated(text: str, at: str, options: DataOptions) -> tuple[int, ...]:
    """Names or numbers of classes joined by "|" → their numbers."""
    numbers = set()
    for name in (part.strip() for part in text.split("|")):
        if name.isdecimal():
            numbers.add(int(name))
        elif name in (options.classes or ()):
            numbers.add((options.classes or []).index(name))
        else:
            raise unknown("class", name, options.classes or ["a class's number"], at)
    return tuple(sorted(numbers))
