"""What a data set is like, found before any training: the planning rests on it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.segmentation.case import IGNORE, Case

_SAMPLED = 5000
"""Foreground voxels a case and channel that stand for its intensities."""


@dataclass(frozen=True)
class Facts:
    """What one case is like.

    Attributes:
        id, patient: of the case.
        shape: voxels along the axes of the file.
        spacing: millimetres, along the same.
        orientation: where the axes point, such as RAS; "flat" for a picture.
        kind: how the file was stored.
        channels: lowest, mean and highest intensity of each channel.
        zeros: share of the voxels of the first channel that are 0.
        foreground: float32 [C, n], intensities sampled evenly inside the classes above 0.
        voxels: class number → voxels; IGNORE too.
        smallest: class number → voxels of its smallest connected piece.
        size: bytes of the files.
        sha256: over the contents of the files.
        voxels_sha256: over the image's voxels alone, however they are stored and whatever was
            drawn on them.
    """

    id: str
    patient: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    orientation: str
    kind: str
    channels: tuple[tuple[float, float, float], ...]
    zeros: float
    foreground: NDArray[np.float32]
    voxels: dict[int, int]
    smallest: dict[int, int]
    size: int
    sha256: str
    voxels_sha256: str

    @property
    def shown(self) -> frozenset[int]:
        """Classes above 0 with a voxel."""
        return frozenset(number for number, count in self.voxels.items() if number > 0 and count)

    def canonical(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Values of the file's axes in the order right, front, head."""
        order = {"L": 0, "R": 0, "A": 1, "P": 1, "I": 2, "S": 2}
        if self.orientation == "flat":
            return tuple(values)
        places = {
            order[letter]: value for letter, value in zip(self.orientation, values, strict=True)
        }
        return tuple(places[axis] for axis in range(3))


def examine(case: Case) -> Facts:
    """The facts of a case."""
    size, sha256 = _digest(case)
    image = case.image
    flat = [channel.reshape(-1) for channel in image]
    ranges = tuple((float(c.min()), float(c.mean(dtype=np.float64)), float(c.max())) for c in flat)
    mask = np.zeros(0, np.int16) if case.mask is None else case.mask.reshape(-1)
    inside = np.flatnonzero(mask > 0)
    inside = inside[:: max(1, len(inside) // _SAMPLED)]
    numbers, counts = np.unique(mask, return_counts=True)
    return Facts(
        case.id,
        case.patient or case.id,
        case.shape,
        case.spacing,
        _orientation(case),
        case.origin.kind,
        ranges,
        float(np.mean(flat[0] == 0)),
        np.stack([channel[inside] for channel in flat]),
        dict(zip(numbers.tolist(), counts.tolist(), strict=True)),
        {} if case.mask is None else _smallest(case.mask),
        size,
        sha256,
        _voxels_digest(image),
    )


def _orientation(case: Case) -> str:
    """Where the axes point, such as RAS."""
    import nibabel

    return "flat" if len(case.shape) == 2 else "".join(nibabel.aff2axcodes(case.affine))


def _digest(case: Case) -> tuple[int, str]:
    """Bytes and SHA-256 of the image's files and of the mask; of the arrays where there is none."""
    total, size = hashlib.sha256(), 0
    for path in case.origin.files:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            size += file.stat().st_size
            with file.open("rb") as stream:
                total.update(hashlib.file_digest(stream, "sha256").digest())
    if not case.origin.files:
        total.update(np.ascontiguousarray(case.image))
        size += case.image.nbytes
    if case.mask is not None:
        total.update(np.ascontiguousarray(case.mask))
    return size, total.hexdigest()


def _voxels_digest(image: NDArray[np.float32]) -> str:
    """SHA-256 over the shape and the float32 voxels of an image."""
    total = hashlib.sha256(str(image.shape).encode())
    for channel in image:
        total.update(np.ascontiguousarray(channel))
    return total.hexdigest()


def _smallest(mask: NDArray[np.int16]) -> dict[int, int]:
    """Voxels of the smallest connected piece (face neighbours) of each class."""
    from scipy import ndimage

    found = {}
    for number in np.unique(mask[mask > 0]).tolist():
        pieces, count = ndimage.label(mask == number)
        found[number] = int(np.bincount(pieces.reshape(-1), minlength=count + 1)[1:].min())
    return found


def fingerprint(facts: Sequence[Facts], classes: Sequence[str]) -> dict[str, Any]:
    """The facts of a data set as plain data, for `plan.json`'s neighbour fingerprint.json."""
    cases = []
    for one in facts:
        row = asdict(one)
        row.pop("foreground")
        row["voxels"] = {str(number): count for number, count in one.voxels.items()}
        row["smallest"] = {str(number): count for number, count in one.smallest.items()}
        cases.append(row)
    return {"cases": cases, "classes": list(classes)}


def summary(facts: Sequence[Facts], classes: Sequence[str]) -> list[str]:
    """What `renshu check-data` prints: sizes, spacings, orientations, intensities, classes."""
    patients = len({one.patient for one in facts})
    lines = [
        f"cases        {len(facts)} of {patients} patients, stored as "
        + ", ".join(f"{kind} ({n})" for kind, n in Counter(one.kind for one in facts).items()),
        "size         " + _spread([one.shape for one in facts], "voxels"),
        "spacing      " + _spread([one.spacing for one in facts], "mm"),
        "orientation  "
        + ", ".join(f"{name} ({n})" for name, n in Counter(o.orientation for o in facts).items()),
    ]
    for channel in range(len(facts[0].channels)):
        low, mean, high = np.array([one.channels[channel] for one in facts]).T
        lines.append(
            f"channel {channel}    {low.min():.6g} to {high.max():.6g}, means of cases"
            f" {mean.min():.4g} to {mean.max():.4g}"
        )
    total = sum(count for one in facts for number, count in one.voxels.items() if number >= 0)
    for number, name in enumerate(classes):
        having = [one for one in facts if one.voxels.get(number)]
        count = sum(one.voxels[number] for one in having)
        text = f"class {number:<6} {name}: in {len(having)} cases"
        text += f", {count / max(total, 1):.3%} of voxels"
        if number and having:
            smallest = min(one.smallest[number] for one in having)
            sizes = [one.voxels[number] * float(np.prod(one.spacing)) for one in having]
            unit = "mm³" if len(having[0].spacing) == 3 else "mm²"
            text += f", {min(sizes):,.0f} to {max(sizes):,.0f} {unit}"
            text += f", smallest piece {smallest} voxels"
        lines.append(text)
    ignored = sum(one.voxels.get(IGNORE, 0) for one in facts)
    return [*lines, f"ignored      {ignored} voxels"] if ignored else lines


def warnings(facts: Sequence[Facts], classes: Sequence[str], patch: Sequence[int]) -> list[str]:
    """What may go wrong with these data, before any training: a sentence each."""
    found = [f"{one.id}: the mask is empty" for one in facts if one.voxels and not one.shown]
    small: list[str] = []
    total = sum(count for one in facts for number, count in one.voxels.items() if number >= 0)
    for number, name in enumerate(classes):
        count = sum(one.voxels.get(number, 0) for one in facts)
        if number and total and count / total < 1e-4:
            found.append(f"{name} is {count / total:.4%} of the voxels: --training.loss dice_focal")
        pieces = [one.smallest[number] for one in facts if number in one.smallest]
        if pieces and min(pieces) < np.prod(patch) * 1e-4:
            small.append(f"{name} {min(pieces)}")
    if small:
        size = int(np.prod(patch))
        found.append(f"smallest pieces in voxels, of a patch of {size:,}: {', '.join(small)}")
    return found


def _spread(rows: Sequence[Sequence[float]], unit: str) -> str:
    """Lowest, median and highest of each axis."""
    if len({len(row) for row in rows}) > 1:
        return "flat and solid cases mixed"
    table = np.array(rows, dtype=np.float64)
    if (table == table[0]).all():
        return "×".join(f"{v:g}" for v in table[0]) + f" {unit}"
    texts = (
        "×".join(f"{v:.4g}" for v in row)
        for row in (table.min(0), np.median(table, 0), table.max(0))
    )
    return "{} (lowest), {} (median), {} (highest) ".format(*texts) + unit
