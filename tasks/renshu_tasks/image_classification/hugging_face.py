"""Reads a local Hugging Face data set: saved with `save_to_disk`, or a folder of parquet files.

Nothing is fetched: pictures are bytes in the tables, or files inside the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from renshu.errors import DataError, near
from renshu_tasks.common.files import inside
from renshu_tasks.common.parts import PART_NAMES, part_of
from renshu_tasks.image_classification.labels import label_names
from renshu_tasks.image_classification.options import DataOptions
from renshu_tasks.image_classification.records import Records


def is_saved(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def tables(path: Path) -> list[Path]:
    """The parquet and arrow files of a folder or of its "data" folder, sorted."""
    files = [*path.iterdir(), *((path / "data").iterdir() if (path / "data").is_dir() else ())]
    return sorted(file for file in files if file.suffix in (".parquet", ".arrow"))


def from_disk(path: Path, options: DataOptions) -> Records:
    """A Dataset or DatasetDict that was saved with `save_to_disk`."""
    import datasets

    try:
        return from_hugging_face(datasets.load_from_disk(str(path)), options, path)
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"the saved data set cannot be read: {error}", where=path) from error


def from_tables(path: Path, files: list[Path], options: DataOptions) -> Records:
    """Parquet or arrow files; the part is the start of the name, as in train-00000.parquet."""
    import datasets
    import pyarrow as pa
    from pyarrow import ipc, parquet

    by_part: dict[str, list[Any]] = {}
    for file in files:
        start = file.stem.split("-")[0].lower()
        try:
            if file.suffix == ".parquet":
                table = parquet.read_table(file)
            else:
                with pa.memory_map(str(file)) as source:
                    table = ipc.open_stream(source).read_all()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"the table cannot be read: {error}", where=file) from error
        by_part.setdefault(start if start in PART_NAMES else "", []).append(table)
    if len(by_part) > 1 and "" in by_part:
        raise DataError(
            "some tables name a part and others do not",
            where=path,
            allowed="names that all start with train, val or test; or none",
        )
    several = {part: datasets.Dataset(pa.concat_tables(all_)) for part, all_ in by_part.items()}
    return from_hugging_face(several.get("", several), options, path)


def from_hugging_face(dataset: Any, options: DataOptions, path: Path | None = None) -> Records:
    """A `datasets.Dataset`, or a dict of them by part.

    `path` is the folder that files named in the table must be in; without it a table must hold
    the pictures themselves. Raises DataError where columns are missing or not clear.
    """
    from renshu_tasks.image_classification.sources import joined

    where = "Hugging Face data set" if path is None else str(path)
    if isinstance(dataset, dict):
        parts = [part_of(name, where) for name in dataset]
        several = [_one(one, options, path, f"{where} ({name})") for name, one in dataset.items()]
        return joined(several, parts, where)
    return _one(dataset, options, path, where)


def _one(dataset: Any, options: DataOptions, path: Path | None, where: str) -> Records:
    import datasets

    features = dataset.features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    image = _column("image", options.image_column, images, list(features), where)
    classed = [name for name, kind in features.items() if _class_names(kind)]
    named = [name for name in ("label", "labels") if name in features]
    label = _column("label", options.label_column, classed or named, list(features), where)
    dataset = dataset.cast_column(image, datasets.Image(decode=False))
    classes = _class_names(features[label])
    optional = {}
    for what in ("split", "group"):
        name = getattr(options, f"{what}_column")
        if name is not None or what in features:
            found = _column(what, name, [what], list(features), where)
            optional[what] = [str(value) for value in dataset[found]]
    parts = optional.get("split")
    return Records(
        ids=[str(row) for row in range(len(dataset))],
        labels=label_names(list(dataset[label]), where, classes),
        pictures=_Encoded(dataset, image, path, options.allow_outside, where),
        where=where,
        classes=classes,
        parts=None if parts is None else [part_of(part, where) for part in parts],
        groups=optional.get("group"),
    )


def _class_names(kind: Any) -> list[str] | None:
    return getattr(getattr(kind, "feature", kind), "names", None)


def _column(what: str, asked: str | None, fit: list[str], names: list[str], where: str) -> str:
    if asked in names:
        return asked
    if asked is None and len(fit) == 1:
        return fit[0]
    raise DataError(
        f"the column {asked!r} is missing" if asked else f"it is not clear which column is {what}",
        where=where,
        allowed=", ".join(names),
        mend=(near(asked, names) if asked else None) or f"--data.{what}_column NAME",
    )


class _Encoded(Sequence):
    """The pictures of a table as bytes, or as files inside its folder."""

    def __init__(
        self, dataset: Any, column: str, root: Path | None, allow_outside: bool, where: str
    ) -> None:
        self.dataset, self.column, self.root = dataset, column, root
        self.allow_outside, self.where = allow_outside, where

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Any:
        cell = self.dataset[int(index)][self.column] or {}
        if cell.get("bytes") is not None:
            return cell["bytes"]
        at = f"{self.where}, row {index}"
        if not cell.get("path"):
            raise DataError("the row has no picture", where=at)
        file = (self.root or Path()) / cell["path"]
        if not self.allow_outside and (self.root is None or not inside(self.root, file)):
            raise DataError(
                f"{cell['path']!r} is outside the data folder",
                where=at,
                mend="--data.allow_outside true if you trust the table",
            )
        return file
