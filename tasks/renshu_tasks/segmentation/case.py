"""One case in memory: image, mask, and where they lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

IGNORE = -1
"""Value of a mask where nothing is known: counts neither in the loss nor in a metric."""


@dataclass(frozen=True)
class Origin:
    """What a result needs to be written as its input was: no name, number or date of a patient.

    Attributes:
        kind: how the input was stored; "array" for one that came from no file.
        files: the image's files, one a channel; of a DICOM series its folder.
        header: a copy of the NIfTI header of the first channel; None for other kinds.
    """

    kind: Literal["nifti", "dicom", "picture", "array"] = "array"
    files: tuple[Path, ...] = ()
    header: Any = None


@dataclass(frozen=True)
class Case:
    """One image with its mask, on the voxel grid of its file; arrays are not to be changed.

    Attributes:
        id: unique in the data set; what the user named it, for his eyes only.
        image: float32 [C, D, H, W], or [C, H, W] of a flat picture; axes in the order of the file.
        affine: float64 [4, 4], voxel index → millimetres to the patient's right, front and head
            (RAS+, NIfTI's convention). A picture [C, H, W] has its rows and columns as the first
            two axes.
        mask: int16 [D, H, W] or [H, W] of class numbers 0 … K - 1 and IGNORE; None without truth.
        origin: what writing a result needs.
        patient: the independent unit of splits and intervals.
        annotated: numbers of the classes that were looked for in this case; None: all. Where a
            class was not looked for, background may hide it.
    """

    id: str
    image: NDArray[np.float32]
    affine: NDArray[np.float64]
    mask: NDArray[np.int16] | None = None
    origin: Origin = Origin()
    patient: str = ""
    annotated: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each spatial axis."""
        return self.image.shape[1:]

    @property
    def spacing(self) -> tuple[float, ...]:
        """Millimetres between voxel centres along each spatial axis."""
        return voxel_spacing(self.affine, len(self.shape))


def voxel_spacing(affine: NDArray[np.float64], axes: int = 3) -> tuple[float, ...]:
    """Lengths in millimetres of the first `axes` columns of an affine [4, 4]."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :axes], axis=0))
