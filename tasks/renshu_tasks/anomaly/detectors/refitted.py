"""A detector whose fitted state scikit-learn does not give as arrays.

It stores the training part, the seed and the scores of some training windows. Loading fits it
again, and those scores must come out as they were.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from renshu.errors import CheckpointError
from renshu_tasks.anomaly.detector import WindowDetector, windows_of
from renshu_tasks.anomaly.series import Values

_PROBED = 64


@dataclass
class RefittedDetector(WindowDetector):
    """Base: the state is the training part; loading fits again and compares scores."""

    learned: ClassVar[tuple[str, ...]] = ("train", "probe")

    def _fit(self, train: Values) -> None:
        super()._fit(train)
        self.train = train
        windows = windows_of(train, self.window)
        self.probe = self.score_windows(windows[:: max(1, len(windows) // _PROBED)])

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        self._fit(arrays["train"])
        stored = arrays["probe"]
        if stored.shape != self.probe.shape or not np.allclose(self.probe, stored, 1e-9, 1e-12):
            raise CheckpointError(
                f"{self.name}, fitted again from its training part, scores otherwise than stored",
                allowed="the scikit-learn version it was fitted with",
                mend="fit the detector again",
            )
