"""The embedded digits are the real ones, and only those."""

from __future__ import annotations

import gzip
import subprocess
import sys

import numpy as np
import pytest

from renshu.errors import DataError
from renshu_tasks.image_classification.demo import digits_file, load_digits


def test_digits_are_those_of_scikit_learn_times_fifteen(digits: tuple):
    from sklearn import datasets

    expected = datasets.load_digits()
    images, labels = digits
    assert images.dtype == np.uint8 and images.shape == (1797, 1, 8, 8)
    assert np.array_equal(images[:, 0], expected.images * 15)
    assert labels == [str(label) for label in expected.target]


def test_an_altered_file_is_refused(tmp_path):
    rows = gzip.decompress(digits_file().read_bytes()).replace(b"16.0", b"15.0", 1)
    (tmp_path / "digits.csv.gz").write_bytes(gzip.compress(rows))
    with pytest.raises(DataError, match="not the file that was checked"):
        load_digits(tmp_path / "digits.csv.gz")


def test_reading_the_digits_imports_no_scikit_learn():
    code = (
        "import sys; from renshu_tasks.image_classification.demo import load_digits;"
        "load_digits(); print(sorted({'sklearn', 'scipy', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_task_is_described_without_torch_or_numpy():
    code = (
        "import sys; from renshu_tasks.image_classification import task; task.options();"
        "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
