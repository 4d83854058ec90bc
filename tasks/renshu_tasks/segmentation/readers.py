"""Reads one file into voxels and their place: NIfTI, PNG, TIFF; DICOM stands in its own file."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renshu.errors import DataError
from renshu_tasks.segmentation.case import Origin, voxel_spacing

NIFTI = (".nii", ".nii.gz")
PICTURES = (".png", ".tif", ".tiff")
KINDS = "NIfTI (.nii, .nii.gz), PNG, TIFF, or the folder of a DICOM series"

LENGTHS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Millimetres of NIfTI's units of length: unknown (taken for mm), metre, millimetre, micron."""

_SHEAR = 1e-3
"""Cosine between two axes of a scan above which they are not perpendicular."""


@dataclass(frozen=True)
class Scan:
    """Voxels of one file and where they lie.

    Attributes:
        voxels: as stored, scaled by the header: [D, H, W], or [H, W] / [C, H, W] of a picture.
        affine: float64 [4, 4], voxel index → millimetres (RAS+).
        origin: what writing needs.
        notes: what is unusual about the file, a sentence each.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    origin: Origin
    notes: tuple[str, ...] = ()


def read_scan(
    file: Path, *, max_voxels: int, picture_spacing: list[float] | None = None, mask: bool = False
) -> Scan:
    """The scan in a file, or in the folder of a DICOM series.

    A picture has one channel as a mask, and as an image as many as it was stored with. Raises
    DataError for what is not there, cannot be read, has no place or has too many voxels.
    """
    if not file.exists():
        raise DataError("the file is not there", where=file)
    if file.is_dir():
        from renshu_tasks.segmentation.dicom import read_series

        return read_series(file, max_voxels=max_voxels)
    kind = ending(file)
    if kind in NIFTI:
        return _read_nifti(file, max_voxels)
    if kind in PICTURES:
        return _read_picture(file, max_voxels, picture_spacing, mask)
    raise DataError("the file is of no kind that can be read", where=file, allowed=KINDS)


def ending(file: Path) -> str:
    """The ending of a file's name in small letters; .nii.gz is one ending."""
    name = file.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else file.suffix.lower()


def stem(file: Path) -> str:
    """The name of a file without its ending."""
    kind = ending(file)
    return file.name[: len(file.name) - len(kind)] if kind else file.name


def _read_nifti(file: Path, max_voxels: int) -> Scan:
    import nibabel

    try:
        image = nibabel.load(file)
        shape, header = image.shape, image.header
        _check_size(shape, max_voxels, file)
        if len(shape) > 3 and set(shape[3:]) != {1}:
            raise DataError(
                f"the scan has {len(shape)} axes: {list(shape)}",
                where=file,
                allowed="3 axes; several channels are several files",
                mend="split it, a file a channel, and name them in a table or by --data.channels",
            )
        voxels = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as e:
        # nibabel says "Expected N bytes, got M" where the header promises more than the file has
        raise DataError(f"the file cannot be read: {e}", where=file) from e
    voxels = voxels.reshape(shape[:3] + (1,) * (3 - len(shape)))
    affine, notes = _placed(image, file)
    return Scan(voxels, affine, Origin("nifti", (file,), header.copy()), notes)


def _placed(image: Any, file: Path) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The affine in mm of a NIfTI file: the sform if it is set, else the qform (NIfTI-1, 2003)."""
    header = image.header
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        raise DataError(
            "the header does not say where the scan lies: sform_code and qform_code are 0",
            where=file,
            allowed="one of them above 0",
            mend="write the file anew with the affine of its scanner",
        )
    to_mm = np.diag([*[_millimetres(header, file)] * 3, 1.0])
    affine = to_mm @ np.asarray(image.affine, dtype=np.float64)
    check_affine(affine, str(file))
    notes = ()
    if header["sform_code"] and header["qform_code"]:
        from renshu_tasks.segmentation.geometry import largest_displacement_mm

        qform = to_mm @ image.get_qform(coded=False)
        apart = largest_displacement_mm(image.shape[:3], affine, qform)
        if apart > 0.1:
            notes = (f"{file.name}: sform and qform are {apart:.3g} mm apart; the sform counts",)
    return affine, notes


def _millimetres(header: Any, file: Path) -> float:
    """Millimetres of the unit in which a NIfTI header gives lengths; DataError if it is none."""
    code = int(header["xyzt_units"]) & 7
    if code not in LENGTHS:
        raise DataError(
            f"the header gives lengths in a unit that is none: xyzt_units is {code}",
            where=file,
            allowed="0 (unknown, taken for mm), 1 (metre), 2 (mm), 3 (micron)",
        )
    return LENGTHS[code]


def check_affine(affine: NDArray[np.float64], where: str) -> None:
    """Raise DataError for an affine without spacing, or with axes that are not perpendicular."""
    spacing = voxel_spacing(affine)
    if not np.isfinite(affine).all() or min(spacing) <= 0:
        raise DataError(
            f"the scan has no spacing: {', '.join(f'{s:g}' for s in spacing)} mm",
            where=where,
            allowed="above 0 along every axis",
            mend="write the file anew with the spacing of its scanner",
        )
    axes = affine[:3, :3] / spacing
    cosines = np.abs(axes.T @ axes - np.eye(3))
    if cosines.max() > _SHEAR:
        raise DataError(
            f"the axes of the scan are not perpendicular (cosine {cosines.max():.3g}):"
            " the gantry was tilted, or the scan was sheared",
            where=where,
            allowed="perpendicular axes",
            mend="resample the scan onto a straight grid first",
        )


def _read_picture(file: Path, max_voxels: int, spacing: list[float] | None, mask: bool) -> Scan:
    from PIL import Image, UnidentifiedImageError

    if spacing is None or len(spacing) != 2:
        raise DataError(
            "a picture does not say how large a pixel is",
            where=file,
            allowed="--data.picture_spacing with two numbers, in millimetres",
            mend="--data.picture_spacing '[1, 1]', and every distance counts pixels",
        )
    try:
        with Image.open(file) as picture:
            frames = getattr(picture, "n_frames", 1)
            if frames != 1:
                raise DataError(f"the picture has {frames} pages", where=file, allowed="1")
            _check_size(picture.size, max_voxels, file)
            if mask and picture.mode not in ("1", "L", "P", "I", "I;16", "F"):
                raise DataError(
                    f"the mask is a picture in colour ({picture.mode})",
                    where=file,
                    allowed="one channel with a whole number a class",
                )
            keep = mask or picture.mode not in ("1", "P", "RGBA", "LA", "CMYK", "YCbCr")
            pixels = np.asarray(picture if keep else picture.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"the picture cannot be read: {error}", where=file) from error
    affine = np.diag([spacing[0], spacing[1], 1.0, 1.0])
    pixels = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels
    return Scan(pixels, affine, Origin("picture", (file,)))


def _check_size(shape: tuple[int, ...], max_voxels: int, file: Path) -> None:
    """Raise DataError before memory is asked for: a header may promise anything."""
    voxels = int(np.prod(shape, dtype=np.float64))
    if not shape or min(shape) < 1 or voxels > max_voxels:
        raise DataError(
            f"the scan has {voxels:,} voxels: {list(shape)}",
            where=file,
            allowed=f"1 to {max_voxels:,}",
            mend="--data.max_voxels N, if the memory is there",
        )
