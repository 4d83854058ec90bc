"""The embedded real data: 1,797 handwritten digits that ship inside scikit-learn.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
Repository, 1998, CC BY 4.0.
"""

from __future__ import annotations

import gzip
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from renshu.errors import DataError

if TYPE_CHECKING:
    import numpy as np

SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def digits_file() -> Path:
    """Where scikit-learn keeps the digits; nothing is imported. Raises DataError without it."""
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "the embedded digits come with scikit-learn, which is not installed",
            mend='pip install "renshu[vision]", or give pictures of your own with --data.path',
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"


def load_digits(file: Path | None = None) -> tuple[np.ndarray, list[str]]:
    """The digits as images uint8 [1797, 1, 8, 8] and labels "0" to "9".

    The file counts 0 to 16 dark points a pixel; a pixel here is that count times 15, so the
    scaling is exact. Raises DataError if the file is not the one that was checked (SHA-256).
    """
    import numpy as np

    file = file or digits_file()
    packed = file.read_bytes()
    if hashlib.sha256(packed).hexdigest() != SHA256:
        raise DataError(
            "the embedded digits are not the file that was checked",
            where=file,
            allowed=f"SHA-256 {SHA256}",
            mend="pip install --force-reinstall scikit-learn",
        )
    lines = gzip.decompress(packed).decode("ascii").split()
    table = np.array([line.split(",") for line in lines]).astype(np.float64).astype(np.uint8)
    return (table[:, :64] * 15).reshape(-1, 1, 8, 8), [str(label) for label in table[:, 64]]
