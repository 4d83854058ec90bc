"""The embedded template: one brain, cut so that no part sees another."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from renshu.errors import DataError
from renshu_tasks.segmentation import demo

pytestmark = pytest.mark.skipif(find_spec("nilearn") is None, reason="the template is nilearn's")


def test_the_parts_are_blocks_along_axis_1_with_margins_between() -> None:
    assert demo.BLOCKS["test"] == (120, 170)
    assert demo.BLOCKS["train"] == (0, 110)
    assert demo.BLOCKS["val"][0] == 190
    edges = pairwise(sorted(demo.BLOCKS.values()))
    assert all(later[0] - earlier[1] >= 10 for earlier, later in edges)


def test_the_held_out_block_shares_no_voxel_with_training_mirrored_or_not() -> None:
    image, mask, affine = demo.load_template()
    assert np.array_equal(image, image[::-1])  # why no split runs along axis 0
    source = demo.template()
    cases = {record.part: source.load(record) for record in source.records}
    seen = {}
    for part in ("train", "test"):
        case = cases[part]
        ends = np.array([[0, 0, 0], np.array(case.shape) - 1])
        millimetres = ends @ case.affine[:3, :3].T + case.affine[:3, 3]
        low, high = np.rint((millimetres - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T)
        box = tuple(slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
        np.testing.assert_array_equal(case.mask, mask[box])
        seen[part] = np.zeros(mask.shape, bool)
        seen[part][box] = True
        seen[part] |= seen[part][::-1]
    assert seen["train"].any()
    assert not (seen["train"] & seen["test"]).any()


def test_the_classes_are_those_of_the_tissue_maps() -> None:
    import nibabel

    image, mask, _ = demo.load_template()
    files = demo.template_files()
    grey, white = (np.asarray(nibabel.load(files[n]).dataobj, np.int64) for n in ("gm", "wm"))
    assert ((image == 0) == (mask == 0)).all()
    random = np.random.default_rng(0).choice(np.flatnonzero(mask), 2000)
    for place in random:
        index = np.unravel_index(place, mask.shape)
        shares = [255 - grey[index] - white[index], grey[index], white[index]]
        assert mask[index] == np.argmax(shares) + 1


def test_another_file_in_its_place_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(demo.SHA256, "gm", "0" * 64)
    with pytest.raises(DataError, match="not the file that was checked"):
        demo.template_files()
