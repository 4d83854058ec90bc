"""Finds the files of a source, or a Hugging Face data set, and which part each belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from renshu.errors import ConfigError, DataError
from renshu_tasks.common.parts import PART_NAMES, PARTS, part_of
from renshu_tasks.text import demo, readers
from renshu_tasks.text.options import DataOptions

Located = tuple[str | None, str, dict[str, Any]]
"""Part or None, where the row stands, its columns."""


@dataclass(frozen=True)
class Source:
    """Where rows come from; they can be read again and again.

    Attributes:
        where: what messages call it.
        digest: SHA-256 over all that is read.
        rows: gives the rows in order.
        columns: column names that it is known to have, by what they hold ("text", "label").
        names: by column, what its whole numbers mean; [] where the source does not say.
    """

    where: str
    digest: str
    rows: Callable[[], Iterator[Located]]
    columns: dict[str, str] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)


def find(options: DataOptions) -> Source:
    """The source that the options name; raises DataError where there is none."""
    if options.path is None:
        file = demo.corpus_file()
        columns = {"text": "text", "label": "sentiment"}
        return _files([(None, file)], demo.ENCODING, options.max_chars, "embedded tweets", columns)
    if options.path.startswith("hub:"):
        return _hub(options.path.removeprefix("hub:"), options)
    path = Path(options.path)
    if not path.exists():
        allowed = f"{readers.KINDS}, a folder of them, a saved Hugging Face data set"
        raise DataError("the data are not there", where=path.absolute(), allowed=allowed)
    if path.is_dir() and any((path / n).is_file() for n in ("dataset_dict.json", "state.json")):
        import datasets

        return from_hugging_face(datasets.load_from_disk(str(path)), str(path))
    files = _parts(path) if path.is_dir() else [(None, path)]
    return _files(files, options.encoding, options.max_chars, str(path), {})


def _parts(folder: Path) -> list[tuple[str | None, Path]]:
    """The files of a folder that are named after a part."""
    known = [
        (PART_NAMES[file.stem.lower()], file)
        for file in sorted(folder.iterdir())
        if file.stem.lower() in PART_NAMES and file.suffix.lower() in readers.KINDS.split(", ")
    ]
    if not any(part == "train" for part, _ in known):
        raise DataError(
            "the folder has no file of training texts",
            where=folder,
            allowed=f"train, val and test with one of {readers.KINDS}",
        )
    return sorted(known, key=lambda one: PARTS.index(one[0]))


def _files(
    files: list[tuple[str | None, Path]],
    encoding: str,
    max_chars: int,
    where: str,
    columns: dict[str, str],
) -> Source:
    total = hashlib.sha256()
    for part, file in files:
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256").digest()
            total.update(f"{part} {file.name} ".encode() + content)

    def rows() -> Iterator[Located]:
        for part, file in files:
            for place, row in readers.read(file, encoding, max_chars):
                yield part, place, row

    return Source(where, total.hexdigest(), rows, columns)


def from_hugging_face(data: Any, where: str) -> Source:
    """A `datasets.Dataset` or `DatasetDict`; its own fingerprints stand for its content."""
    import datasets

    sets = dict(data) if isinstance(data, datasets.DatasetDict) else {None: data}
    parts = {name: None if name is None else part_of(name, where) for name in sets}
    digest = hashlib.sha256(str([(n, one._fingerprint) for n, one in sets.items()]).encode())
    names: dict[str, list[str]] = {}
    for part, one in sets.items():
        for column, feature in one.features.items():
            own = list(getattr(getattr(feature, "feature", feature), "names", None) or [])
            if own != names.setdefault(column, own):
                raise DataError(
                    f"the numbers of {column!r} mean {', '.join(own) or 'nothing'} here and "
                    f"{', '.join(names[column]) or 'nothing'} in the parts before",
                    where=f"{where}, {part}",
                    allowed="the same names in the same order in all parts",
                )

    def rows() -> Iterator[Located]:
        for name, one in sets.items():
            for number, row in enumerate(one, start=1):
                yield parts[name], f"{name or 'row'}:{number}", row

    return Source(where, digest.hexdigest(), rows, names=names)


def _hub(name: str, options: DataOptions) -> Source:
    """A data set of the hub, which is asked only when that was allowed.

    Raises ConfigError at once without leave, and where the data set cannot be had.
    """
    import datasets

    offline = "where there is a network, save_to_disk(FOLDER); here --data.path FOLDER"
    if not (options.download or datasets.config.HF_HUB_OFFLINE):
        raise ConfigError(
            f"the data set {name!r} is on the hub, and nothing is fetched unasked",
            where="data.path",
            allowed="--data.download true; HF_HUB_OFFLINE=1 takes it from the local cache",
            mend=offline,
        )
    try:
        found = datasets.load_dataset(name, download_config=datasets.DownloadConfig(max_retries=1))
    except (OSError, ValueError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"the data set {name!r} cannot be had: {said}", where="data.path", mend=offline
        ) from error
    return from_hugging_face(found, f"hub:{name}")
