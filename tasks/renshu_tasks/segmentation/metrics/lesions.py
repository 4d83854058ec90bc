"""Lesion-wise detection: connected components found, missed and invented."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from renshu_tasks.segmentation.metrics.surfaces import Mask


def lesion_f1(prediction: Mask, reference: Mask) -> float:
    """F1 over connected components; voxels that touch at a corner are connected.

    A lesion of the reference is found if one voxel of it is predicted; a predicted one without a
    voxel of the reference is invented (ISLES 2022, Hernandez Petzsche et al., doi
    10.1038/s41597-022-01875-5). Two lesions under one predicted component are both found.
    """
    everywhere = np.ones((3,) * prediction.ndim)
    lesions, there = ndimage.label(reference, everywhere)
    guesses, made = ndimage.label(prediction, everywhere)
    both = prediction & reference
    found, right = len(np.unique(lesions[both])), len(np.unique(guesses[both]))
    return 2 * found / (2 * found + (there - found) + (made - right))
