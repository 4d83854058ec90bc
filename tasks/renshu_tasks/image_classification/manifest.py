"""Reads a CSV manifest: a row a picture, with its path, label and, if wanted, part and group."""

from __future__ import annotations

import re
from pathlib import Path

from renshu.errors import DataError, near
from renshu_tasks.common.files import inside, read_rows
from renshu_tasks.common.parts import part_of
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.records import Records

_MEND = 'in a spreadsheet: save as "CSV UTF-8"; or iconv -f latin1 -t utf-8'
_NOT_A_PATH = re.compile(r"[a-zA-Z0-9+.-]+://|[a-zA-Z]:[\\/]|\\\\")  # file://, C:\, \\server


def from_csv(path: Path, options: DataOptions) -> Records:
    """The rows of a manifest in UTF-8, separated by comma, semicolon or tab, with a header.

    Paths are relative to `root`, or to the manifest's folder. Raises DataError with the line of a
    missing column, an empty or unknown label, a path outside the folder, a file that is missing.
    """
    header, rows = read_rows(path, "manifest", _MEND)
    columns = _columns(header, path, options)
    root = Path(options.root) if options.root else path.parent
    records = Records([], [], [], str(path), classes=options.classes)
    files: list[Path] = []
    parts: list[str] = []
    groups: list[str] = []
    lines: dict[str, int] = {}
    for line, row in rows:
        at = f"{path}, line {line}"
        if len(row) != len(header):
            raise DataError(f"the row has {len(row)} fields", where=at, allowed=len(header))
        file = _file(root, row[columns["image"]], at, options)
        name = str(file)
        if name in lines:
            raise DataError(f"{name} is listed twice", where=at, mend=f"see line {lines[name]}")
        lines[name] = line
        files.append(file)
        records.ids.append(row[columns["image"]])
        records.labels.append(_labels(row[columns["label"]], at, options))
        if "split" in columns:
            parts.append(part_of(row[columns["split"]], at))
        if "group" in columns:
            groups.append(row[columns["group"]])
    if not files:
        raise DataError("the manifest has no rows", where=path)
    records.pictures = files
    records.parts = parts or None
    records.groups = groups or None
    return records


def _columns(header: list[str], path: Path, options: DataOptions) -> dict[str, int]:
    """The position of image, label and, where they are, split and group."""
    wanted = {
        "image": options.image_column or "path",
        "label": options.label_column or "label",
        "split": options.split_column or "split",
        "group": options.group_column or "group",
    }
    for what, name in wanted.items():
        needed = what in ("image", "label") or getattr(options, f"{what}_column") is not None
        if header.count(name) > 1:
            raise DataError(f"the column {name!r} is there twice", where=f"{path}, line 1")
        if needed and name not in header:
            raise DataError(
                f"the column {name!r} is missing",
                where=f"{path}, line 1",
                allowed=f"found: {', '.join(header)}",
                mend=near(name, header) or f"--data.{what}_column NAME",
            )
    return {what: header.index(name) for what, name in wanted.items() if name in header}


def _labels(text: str, at: str, options: DataOptions) -> tuple[str, ...]:
    names = text.split(options.label_separator) if options.multi_label else [text]
    labels = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    if not labels and not options.multi_label:
        raise DataError("the label is empty", where=at)
    for label in labels:
        if options.classes is not None and label not in options.classes:
            raise DataError(
                f"the label {label!r} is unknown",
                where=at,
                allowed=", ".join(options.classes),
                mend=near(label, options.classes) or "mend the row, or add it to --data.classes",
            )
    return labels


def _file(root: Path, name: str, at: str, options: DataOptions) -> Path:
    """The file that a row names: a real file, inside the root unless that was allowed."""
    steps_up = ".." in re.split(r"[/\\]", name)
    if not name or "\0" in name or _NOT_A_PATH.match(name):
        raise DataError(f"{name[:200]!r} is no path of a local file", where=at)
    file = root / name
    try:
        outside = steps_up or Path(name).is_absolute() or not inside(root, file)
        there = file.is_file()
    except OSError as error:
        raise DataError(f"{name[:200]!r}: {error.strerror}", where=at) from error
    if outside and not options.allow_outside:
        raise DataError(
            f"{name!r} is outside the data folder",
            where=at,
            allowed=f"files in {root.absolute()}",
            mend="--data.root FOLDER, or --data.allow_outside true if you trust the manifest",
        )
    if not there:
        raise DataError(f"{name!r} is not there", where=at, allowed=f"files in {root.absolute()}")
    return file
