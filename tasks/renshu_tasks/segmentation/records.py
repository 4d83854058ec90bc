"""What a source lists before any voxel is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from renshu_tasks.segmentation.case import Case

PART_NAMES = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
}


@dataclass(frozen=True)
class Record:
    """One case by its files.

    Attributes:
        id: unique in the source.
        images: a file a channel, or the folder of a DICOM series; empty for arrays.
        mask: file of the mask; None without truth.
        patient: cases of one patient stay in one part.
        part: train, val or test, where the source says so.
        annotated: numbers of the classes that were looked for; None: all.
    """

    id: str
    images: tuple[Path, ...] = ()
    mask: Path | None = None
    patient: str = ""
    part: str | None = None
    annotated: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Source:
    """The cases of a data set.

    Attributes:
        records: what there is.
        load: reads one of them; the mask holds the class numbers.
        where: what a message calls the source.
        classes: names by number, the background first; None: as found.
        modality: ct, mr or picture, if the source says so.
        same_scale: an intensity means the same in every case, as it does in CT.
        notes: what was left out or decided, a sentence each.
    """

    records: list[Record]
    load: Callable[[Record], Case]
    where: str
    classes: list[str] | None = None
    modality: str | None = None
    same_scale: bool = False
    notes: list[str] = field(default_factory=list)
