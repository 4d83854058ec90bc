"""Reads the folder of a DICOM series: sorted by place, scaled, and whole, or refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renshu.errors import DataError
from renshu_tasks.segmentation.case import Origin
from renshu_tasks.segmentation.readers import Scan, check_affine

_UNEVEN = 0.02
"""Share of the distance of slices by which one may be off: positions have few digits."""

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "Modality", "Rows", "Columns", "PixelSpacing",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "NumberOfFrames",
    "RescaleSlope", "RescaleIntercept", "PhotometricInterpretation",
]  # fmt: skip
"""Read before any pixel: nothing that names a patient is among them."""


def read_series(folder: Path, *, max_voxels: int, series: str | None = None) -> Scan:
    """The one series in a folder, as voxels float32 [columns, rows, slices].

    Slices are sorted by their position along the normal (DICOM PS3.3, C.7.6.2.1.1), whatever their
    names and instance numbers say. `series` chooses one by its UID where there are several. Raises
    DataError for a missing or doubled slice, several series, or pixels that cannot be decoded.
    """
    slices = _one_series(folder, _headers(folder), series)
    first = slices[0][1]
    rows, columns = int(first.Rows), int(first.Columns)
    if rows * columns * len(slices) > max_voxels:
        raise DataError(
            f"the series has {rows * columns * len(slices):,} voxels",
            where=folder,
            allowed=f"up to {max_voxels:,}",
            mend="--data.max_voxels N, if the memory is there",
        )
    along, across = np.split(np.array(first.ImageOrientationPatient, dtype=np.float64), 2)
    normal = np.cross(along, across)
    where = {file: float(np.dot(normal, _position(header))) for file, header in slices}
    slices.sort(key=lambda item: where[item[0]])
    _check_even([(file, where[file]) for file, _ in slices], folder)
    affine = _affine(slices, along, across)
    check_affine(affine, str(folder))
    voxels = np.empty((columns, rows, len(slices)), dtype=np.float32)
    for number, (file, _) in enumerate(slices):
        voxels[:, :, number] = _pixels(file).T
    return Scan(voxels, affine, Origin("dicom", (folder,)))


def modality(folder: Path) -> str | None:
    """ct or mr by the first DICOM file of a folder; None for others."""
    headers = _headers(folder, most=1)
    return {"CT": "ct", "MR": "mr"}.get(headers[0][1].get("Modality", "")) if headers else None


def _headers(folder: Path, most: int | None = None) -> list[tuple[Path, Any]]:
    """(file, its few tags) for every DICOM file of a folder; files of other kinds are passed by."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    found = []
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        except (InvalidDicomError, OSError, EOFError, ValueError) as error:
            if file.suffix.lower() == ".dcm":
                raise DataError(f"the slice cannot be read: {error}", where=file) from error
            continue
        if "ImagePositionPatient" in header:
            found.append((file, header))
        elif "Rows" in header:
            raise DataError(
                "the slice does not say where it lies in the patient",
                where=file,
                allowed="ImagePositionPatient and ImageOrientationPatient; one slice a file",
            )
        if most and len(found) >= most:
            break
    return found


def _one_series(
    folder: Path, headers: list[tuple[Path, Any]], series: str | None
) -> list[tuple[Path, Any]]:
    """The slices of one series, all of one size and orientation."""
    if not headers:
        raise DataError("there is no DICOM slice in the folder", where=folder)
    counts = Counter(str(header.SeriesInstanceUID) for _, header in headers)
    if series is None and len(counts) > 1:
        raise DataError(
            f"the folder holds {len(counts)} series: "
            + ", ".join(f"{count} slices …{uid[-12:]}" for uid, count in counts.items()),
            where=folder,
            allowed="one series a folder",
            mend="sort the files into a folder a series",
        )
    chosen = [item for item in headers if str(item[1].SeriesInstanceUID) == series or not series]
    for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
        if any(name not in header for _, header in chosen):
            raise DataError(f"a slice lacks {name}", where=folder)
        values = [np.array(header[name].value, dtype=np.float64) for _, header in chosen]
        off = [not np.allclose(value, values[0], atol=1e-4) for value in values]
        if any(off):
            raise DataError(
                f"the slices differ in {name}",
                where=chosen[off.index(True)][0],
                allowed=str(chosen[0][1][name].value),
            )
    return chosen


def _position(header: Any) -> NDArray[np.float64]:
    return np.array(header.ImagePositionPatient, dtype=np.float64)


def _check_even(places: list[tuple[Path, float]], folder: Path) -> None:
    """Raise DataError for a slice that is missing or doubled; places are millimetres, ascending."""
    if len(places) == 1:
        raise DataError(
            "the series has one slice, so the distance of its slices is unknown",
            where=folder,
            allowed="2 slices or more",
        )
    gaps = np.diff([place for _, place in places])
    step = float(np.median(gaps))
    for number, gap in enumerate(gaps):
        before, after = places[number], places[number + 1]
        between = f"{before[0].name} at {before[1]:.2f} mm and {after[0].name} at {after[1]:.2f} mm"
        if gap < 1e-3:
            raise DataError(f"two slices lie at one place: {between}", where=folder)
        if abs(gap - step) > _UNEVEN * step:
            missing = round(gap / step) - 1
            what = f"{missing} missing" if missing > 0 else "the distance changes"
            raise DataError(
                f"the slices are {step:.3g} mm apart, but {gap:.3g} mm ({what}) between {between}",
                where=folder,
                allowed="every slice of the series, evenly spaced",
                mend="find the missing slices; nothing is made up between their neighbours",
            )


def _affine(
    slices: list[tuple[Path, Any]], along: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Index (column, row, slice) → millimetres in RAS+; the slices' own positions show a tilt."""
    first, last = slices[0][1], slices[-1][1]
    spacing = [float(value) for value in first.PixelSpacing]  # between rows, between columns
    affine = np.eye(4)
    affine[:3, 0] = along * spacing[1]
    affine[:3, 1] = across * spacing[0]
    affine[:3, 2] = (_position(last) - _position(first)) / (len(slices) - 1)
    affine[:3, 3] = _position(first)
    return _LPS_TO_RAS @ affine


def _pixels(file: Path) -> NDArray[np.float64]:
    """Pixels [rows, columns] with the slope and intercept of the slice applied."""
    import pydicom
    from pydicom.pixels import apply_modality_lut

    dataset = pydicom.dcmread(file)
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        pixels = apply_modality_lut(dataset.pixel_array, dataset)
    except (RuntimeError, NotImplementedError, AttributeError, ValueError) as error:
        raise DataError(
            f"the pixels, stored as {syntax.name}, cannot be decoded",
            where=file,
            allowed="uncompressed pixels, or a syntax whose decoder is installed",
            mend="pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg",
        ) from error
    if pixels.ndim != 2:
        raise DataError(
            f"the slice has the shape {list(pixels.shape)}", where=file, allowed="2 axes"
        )
    return pixels
