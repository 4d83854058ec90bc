"""Masks written in the space of the file they were made for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from renshu.errors import DataError
from renshu_tasks.segmentation.case import Case
from renshu_tasks.segmentation.geometry import largest_displacement_mm
from renshu_tasks.segmentation.readers import LENGTHS

EXACT_MM = 1e-3
"""So far a written grid may lie from the image's: a header holds 32-bit numbers."""

_SCANNER, _ALIGNED = 1, 2
_FREE_TEXT = ("descrip", "aux_file", "intent_name", "db_name", "data_type")


def write_mask(
    path: Path, mask: NDArray[Any], like: Case, *, values: Mapping[int, int] | None = None
) -> Path:
    """Write a mask beside nothing but its own input's grid.

    Args:
        path: where, without a suffix: .nii.gz is added for an input of NIfTI or DICOM (in patient
            space), for a picture its own suffix .tif or .tiff, else .png.
        mask: class numbers on the grid of `like`, 0 or more.
        like: the case as it was read.
        values: what each class number is called in the user's own masks; None: the same.

    Returns:
        The file. It appears whole or not at all.

    Raises:
        DataError: the mask has another shape, a number the format cannot hold, or the format
            cannot hold the affine to a thousandth of a millimetre.
    """
    if mask.shape != like.shape:
        raise DataError(f"the mask has shape {mask.shape}, its image {like.shape}", where=path)
    lowest, highest = int(mask.min(initial=0)), int(mask.max(initial=0))
    if values is not None:
        numbers = np.array([values.get(k, k) for k in range(highest + 1)])
        mask, highest = numbers[mask], int(numbers.max())
    if min(lowest, int(mask.min(initial=0))) < 0 or highest > 65535:
        raise DataError(f"mask values from {lowest} to {highest}", where=path, allowed="0 to 65535")
    small = mask.astype(np.uint8 if highest < 256 else np.uint16)
    write = _picture if like.origin.kind == "picture" else _nifti
    source = like.origin.files[0] if like.origin.files else None
    file = path.with_name(path.name + mask_ending(source, picture=like.origin.kind == "picture"))
    unfinished = file.with_name(f".unfinished-{file.name}")
    write(unfinished, small, like)
    unfinished.replace(file)
    return file


def mask_ending(source: Path | None, *, picture: bool) -> str:
    """What the mask of a file ends in: .nii.gz, of a picture its own .tif or .tiff, else .png."""
    if not picture:
        return ".nii.gz"
    own = source.suffix.lower() if source else ""
    return own if own in (".tif", ".tiff") else ".png"


def _nifti(file: Path, mask: NDArray[Any], like: Case) -> None:
    """The input's header and unit, one affine in both forms, nothing that may name a patient."""
    import nibabel

    old = like.origin.header
    kind = nibabel.Nifti2Image if isinstance(old, nibabel.Nifti2Header) else nibabel.Nifti1Image
    header = kind.header_class() if old is None else old.copy()
    code = _SCANNER if old is None else max(int(old["sform_code"]), int(old["qform_code"]))
    header.extensions.clear()  # they often hold the DICOM header
    for field in _FREE_TEXT:
        header[field] = b""
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header.set_data_dtype(mask.dtype)
    unit = 2 if old is None else int(old["xyzt_units"]) & 7 or 2
    to_mm = np.diag([*[LENGTHS[unit]] * 3, 1.0])
    own = np.linalg.inv(to_mm) @ like.affine
    image = kind(mask, own, header)
    image.header["xyzt_units"] = unit
    image.set_sform(own, code=code or _ALIGNED)
    _set_qform(image, own, code or _ALIGNED, to_mm)
    shape = (*mask.shape, 1)[:3]
    if largest_displacement_mm(shape, to_mm @ image.get_sform(), like.affine) > EXACT_MM:
        raise DataError(
            f"NIfTI holds this affine only to more than {EXACT_MM:g} mm:\n{like.affine}",
            where=file,
            mend="move the image's origin nearer to 0",
        )
    nibabel.save(image, file)


def _set_qform(
    image: Any, affine: NDArray[np.float64], code: int, to_mm: NDArray[np.float64]
) -> None:
    """Both forms alike; a form that cannot say a shear says nothing rather than another place."""
    image.set_qform(affine, code=code, strip_shears=True)
    shape = (*image.shape, 1)[:3]
    if largest_displacement_mm(shape, to_mm @ image.get_qform(), to_mm @ affine) > EXACT_MM:
        image.set_qform(None, code=0)


def _picture(file: Path, mask: NDArray[Any], like: Case) -> None:
    """8 or 16 bits without loss; of the input's tags the resolution alone is kept."""
    from PIL import Image

    options: dict[str, Any] = {}
    if like.origin.files:
        with Image.open(like.origin.files[0]) as source:
            options = {"dpi": source.info["dpi"]} if "dpi" in source.info else {}
    if file.suffix != ".png":
        options["compression"] = "tiff_lzw"
    Image.fromarray(mask).save(file, **options)
