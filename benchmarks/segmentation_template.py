"""The embedded template beside thresholds and boosted trees: what a network adds.

The held-out block of nilearn's MNI152 with the parts of `renshu_tasks.segmentation.demo`; Otsu's
thresholds and trees on filters see the same T1 image. Ours learns on one thread for --minutes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

import _table
from _segmentation import dice, taken, test_dice, trained
from renshu_tasks.segmentation import demo
from renshu_tasks.segmentation.data import SegmentationData
from renshu_tasks.segmentation.options import SegmentationOptions, TrainingOptions

TEMPLATE = "template, held-out block, mean Dice of grey and white"


def template(minutes: float) -> Iterable[_table.Row]:
    """Grey and white matter of the held-out block: thresholds, trees on filters, ours."""
    options = SegmentationOptions(training=TrainingOptions(full_cases=0))
    data = SegmentationData(demo.template(), options)
    cases = {part: next(iter(data.cases(part))) for part in ("train", "test")}
    truth = cases["test"].mask
    otsu = np.mean(dice(_otsu(cases["test"].image[0]), truth, (2, 3)))
    trees = np.mean(dice(_trees(cases["train"], cases["test"]), truth, (2, 3)))
    segmenter, spent = trained(data, minutes * 60)
    yield _table.Row(
        TEMPLATE,
        "Dice",
        test_dice(data, segmenter, (2, 3)),
        float(trees),
        "boosted trees on 14 filters",
        ">= 0.97",
        spread=f"after {spent / 60:.0f} min of one thread; Otsu {otsu:.4f}",
    )


def _otsu(image: np.ndarray) -> np.ndarray:
    """Two thresholds inside the brain (Otsu 1979): other, grey, white as 1, 2, 3."""
    from skimage.filters import threshold_multiotsu

    thresholds = threshold_multiotsu(image[image > 0], classes=3)
    return np.where(image > 0, np.digitize(image, thresholds) + 1, 0)


def _filters(image: np.ndarray, place: np.ndarray) -> np.ndarray:
    """14 multi-scale features of T1 [voxels, 14] at flat places."""
    from scipy import ndimage

    columns = [image]
    for sigma in (1.0, 2.0, 4.0):
        smooth = ndimage.gaussian_filter(image, sigma)
        columns += [
            smooth,
            ndimage.gaussian_gradient_magnitude(image, sigma),
            ndimage.gaussian_laplace(image, sigma),
            np.sqrt(np.maximum(ndimage.gaussian_filter(image**2, sigma) - smooth**2, 0)),
        ]
    columns.append(ndimage.median_filter(image, 3))
    return np.stack([column.reshape(-1)[place] for column in columns], axis=1)


def _trees(train: Any, test: Any) -> np.ndarray:
    """Gradient-boosted trees on the filters, 400,000 voxels inside the training block."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    random = np.random.default_rng(0)
    inside = np.flatnonzero(train.mask)
    place = random.choice(inside, 400_000, replace=False)
    trees = HistGradientBoostingClassifier(max_iter=200, random_state=0)
    trees.fit(_filters(train.image[0], place), train.mask.reshape(-1)[place])
    answer = np.zeros(test.mask.size, np.int64)
    inside = np.flatnonzero(test.image[0] > 0)
    answer[inside] = trees.predict(_filters(test.image[0], inside))
    return answer.reshape(test.mask.shape)


def measure(quick: bool) -> Iterable[_table.Row]:
    """One row; in --quick that of the last full run."""
    torch.set_num_threads(1)
    if quick:
        yield _table.stored(__file__, TEMPLATE, "Dice", ">= 0.97")
    else:
        yield from template(MINUTES)


MINUTES = 30.0

if __name__ == "__main__":
    MINUTES = taken("--minutes", MINUTES)
    _table.main(__file__, measure)
