"""The definitions of the surface figures that libraries use, selectable by the library's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from renshu_tasks.segmentation.metrics.surfaces import (
    Elements,
    Mask,
    Surfaces,
    edge_voxels,
    surface_corners,
)

PERCENT = 95.0


@dataclass(frozen=True)
class Definition:
    """How one library measures surfaces.

    Attributes:
        elements: what the surface is made of.
        hd95: the robust Hausdorff distance in mm.
        asd: the average surface distance in mm, both ways in one figure.
        says: hd95_mm, asd_mm and nsd in words.
    """

    elements: Callable[[Mask, Sequence[float]], Elements]
    hd95: Callable[[Surfaces], float]
    asd: Callable[[Surfaces], float]
    says: Mapping[str, str]


def nsd(surfaces: Surfaces, tolerance_mm: float) -> float:
    """Normalised surface Dice: the share of both surfaces within the tolerance of the other.

    Nikolov et al. 2018 (arXiv 1809.04430). Elements count by their size.
    """
    near = surfaces.forth_sizes[surfaces.forth <= tolerance_mm].sum()
    near += surfaces.back_sizes[surfaces.back <= tolerance_mm].sum()
    return float(near / (surfaces.forth_sizes.sum() + surfaces.back_sizes.sum()))


def _greater_percentile(surfaces: Surfaces) -> float:
    return float(max(np.percentile(way, PERCENT) for way in (surfaces.forth, surfaces.back)))


def _pooled_percentile(surfaces: Surfaces) -> float:
    return float(np.percentile(np.concatenate([surfaces.forth, surfaces.back]), PERCENT))


def _greater_weighted_percentile(surfaces: Surfaces) -> float:
    return max(
        _weighted_percentile(surfaces.forth, surfaces.forth_sizes),
        _weighted_percentile(surfaces.back, surfaces.back_sizes),
    )


def _weighted_percentile(distances: NDArray[np.float64], sizes: NDArray[np.float64]) -> float:
    """The first distance at which the summed size reaches the percentage; no interpolation."""
    order = np.lexsort((sizes, distances))
    reached = np.cumsum(sizes[order]) / sizes.sum()
    place = np.searchsorted(reached, PERCENT / 100)
    return float(distances[order[min(place, len(order) - 1)]])


def _pooled_mean(surfaces: Surfaces) -> float:
    return float(np.concatenate([surfaces.forth, surfaces.back]).mean())


def _mean_of_weighted_means(surfaces: Surfaces) -> float:
    forth = np.average(surfaces.forth, weights=surfaces.forth_sizes)
    return float((forth + np.average(surfaces.back, weights=surfaces.back_sizes)) / 2)


_VOXELS = {
    "asd_mm": "mean over the edge voxels of both masks together",
    "nsd": "share of the edge voxels of both masks within the tolerance",
}

DEFINITIONS: Mapping[str, Definition] = {
    "monai": Definition(
        edge_voxels,
        _greater_percentile,
        _pooled_mean,
        _VOXELS | {"hd95_mm": "the greater of the two directed 95th percentiles over edge voxels"},
    ),
    "medpy": Definition(
        edge_voxels,
        _pooled_percentile,
        _pooled_mean,
        _VOXELS | {"hd95_mm": "95th percentile over the edge voxels of both masks pooled"},
    ),
    "surface-distance": Definition(
        surface_corners,
        _greater_weighted_percentile,
        _mean_of_weighted_means,
        {
            "hd95_mm": "the greater of the two directed 95th percentiles, weighted by area",
            "asd_mm": "mean of the two directed means, weighted by area",
            "nsd": "share of the area of both surfaces within the tolerance",
        },
    ),
}


def definitions(name: str, tolerance_mm: float) -> dict[str, str]:
    """What each figure is, in words that stand beside it; `name` is one of DEFINITIONS."""
    says = DEFINITIONS[name].says
    return {
        "dice": "2 |P ∩ R| / (|P| + |R|) over voxels",
        "iou": "|P ∩ R| / |P ∪ R| over voxels",
        "hd95_mm": f"{says['hd95_mm']} (as {name}), mm",
        "asd_mm": f"{says['asd_mm']} (as {name}), mm",
        "nsd": f"{says['nsd']} of {tolerance_mm:g} mm (as {name})",
        "lesion_f1": "F1 over connected components (touching corners connect); one voxel of "
        "overlap finds a lesion",
        "volume_error": "|P - R| / mean of P and R, from 0 to 2",
    }
