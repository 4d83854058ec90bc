"""The embedded real data: 1,797 handwritten digits that ship inside scikit-learn.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, CC BY 4.0.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

from renshu_tasks.common.packaged import checked, packaged

if TYPE_CHECKING:
    import numpy as np

SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def digits_file() -> Path:
    """Where scikit-learn keeps the digits; nothing is imported. Raises DataError without it."""
    return packaged(
        "sklearn",
        "datasets/data/digits.csv.gz",
        "the embedded digits come with scikit-learn, which is not installed",
        'pip install "renshu[vision]", or give pictures of your own with --data.path',
    )


def load_digits(file: Path | None = None) -> tuple[np.ndarray, list[str]]:
    """The digits as images uint8 [1797, 1, 8, 8] and labels "0" to "9".

    The file counts 0 to 16 dark points a pixel; a pixel here is that count times 15, so the
    scaling is exact. Raises DataError if the file is not the one that was checked (SHA-256).
    """
    import numpy as np

    file = file or digits_file()
    said = "the embedded digits are not the file that was checked"
    checked(file, SHA256, said, "pip install --force-reinstall scikit-learn")
    lines = gzip.decompress(file.read_bytes()).decode("ascii").split()
    table = np.array([line.split(",") for line in lines]).astype(np.float64).astype(np.uint8)
    return (table[:, :64] * 15).reshape(-1, 1, 8, 8), [str(label) for label in table[:, 64]]
