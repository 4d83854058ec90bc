"""What a detector is: fitted on values, it gives every point a score. It never sees a label.

A new detector is one file in detectors/: a dataclass of its parameters with `_fit` and `_score`
(or, for windows, `fit_windows` and `score_windows`), a line in `detectors.DETECTORS`, and a test
against a reference.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from renshu.errors import ConfigError, DataError, RunError
from renshu_tasks.anomaly.series import Values, check_finite

Scores = NDArray[np.float64]
"""float64 [T], finite, 0 or more; higher is more anomalous."""

LARGEST = 1e100
"""Values beyond are refused: their squares would not be finite."""


FIT_BYTES = 4 * 2**30
"""Windows of a training part may take so many bytes."""

BLOCK_BYTES = 32 * 2**20
"""Windows are scored in blocks of so many bytes, whatever the length of the series."""


@dataclass(frozen=True)
class State:
    """All that a fitted detector is: parameters that JSON can hold, and arrays. Nothing that runs.

    Attributes:
        name: the detector's, a key of `detectors.DETECTORS`.
        parameters: what its class was made with.
        arrays: what it learned, by name.
    """

    name: str
    parameters: dict[str, Any]
    arrays: dict[str, NDArray[Any]]


@dataclass
class Detector(ABC):
    """Base of all detectors. Subclasses are dataclasses: their fields are the parameters.

    `fit`, `score` and `contributions` check what goes in and what comes out, and call the methods
    with an underscore, which a subclass writes.

    Attributes:
        name: the word that users type.
        source: the publication.
        cost: of fitting and scoring, in T points, w window, C channels, N training points.
        multivariate: whether several channels can be scored together.
        additive: whether a score is the sum of its channels' contributions.
        trivial: a baseline that every table needs.
        learned: names of the attributes that `fit` sets: arrays.
        channels: C of the training part; 0 before `fit`.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    cost: ClassVar[str]
    multivariate: ClassVar[bool] = True
    additive: ClassVar[bool] = False
    trivial: ClassVar[bool] = False
    learned: ClassVar[tuple[str, ...]] = ()

    channels: int = dataclasses.field(default=0, init=False)

    # --- what is called

    def fit(self, train: Values) -> Self:
        """Learn from float64 [N, C], taken to be mostly normal. There is no argument for labels.

        Raises DataError for values that cannot be used.
        """
        train = self._checked(train)
        self.channels = train.shape[1]
        self._fit(train)
        return self

    def score(self, values: Values, causal: bool = False) -> Scores:
        """float64 [T, C] → one score a point, float64 [T], finite, 0 or more.

        Args:
            values: any series of the fitted channels; it need not follow the training part.
            causal: the score of a point depends on it and earlier points alone, and is what a
                stream gives. Else that of a window is given to its middle.

        The scores of a prefix are the prefix of the causal scores. Raises DataError for values that
        cannot be used, ConfigError before `fit`, RunError for scores that break the contract.
        """
        values = self._fitted(values)
        return self._sound(self._score(values, causal), len(values))

    def fit_score(self, values: Values) -> Scores:
        """Fit on a series and score that very series, without labels: the transductive protocol.

        Detectors by neighbours override it: a point is no neighbour of itself.
        """
        return self.fit(values).score(values)

    def contributions(self, values: Values, causal: bool = False) -> NDArray[np.float64]:
        """float64 [T, C] that sum to the scores over the channels.

        Raises ConfigError for a detector whose score is not a sum over channels.
        """
        if not self.additive:
            raise ConfigError(
                f"the score of {self.name} is not a sum over channels, so it has no contributions",
                mend="an additive detector, such as zscore, pca or cnn",
            )
        return self._contributions(self._fitted(values), causal)

    def stream(self) -> Stream:
        """Scores point by point, equal to the causal scores."""
        self._fitted(None)
        return Stream(self)

    @property
    def memory(self) -> int:
        """Points, its own among them, that a causal score looks at."""
        return 1

    @property
    def shortest(self) -> int:
        """Points that a series needs at least."""
        return self.memory

    # --- state

    def parameters(self) -> dict[str, Any]:
        """What the class was made with; JSON can hold it."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.init}

    def state(self) -> State:
        """Everything fitted. `detectors.restore` brings it back."""
        self._fitted(None)
        arrays = {"channels": np.array(self.channels), **self._arrays()}
        return State(self.name, self.parameters(), arrays)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """The detector that gave this state; its scores are the same.

        Raises CheckpointError if it cannot be brought back exactly.
        """
        detector = cls(**state.parameters)
        detector.load_arrays(state.arrays)
        return detector

    def load_arrays(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Take over the arrays of a `State` of the same parameters."""
        self.channels = int(arrays["channels"].item())
        self._restore(arrays)

    # --- what a subclass writes

    @abstractmethod
    def _fit(self, train: Values) -> None: ...

    @abstractmethod
    def _score(self, values: Values, causal: bool) -> Scores: ...

    def _contributions(self, values: Values, causal: bool) -> NDArray[np.float64]:
        raise NotImplementedError

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {name: np.asarray(getattr(self, name)) for name in self.learned}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        for name in self.learned:
            setattr(self, name, arrays[name])

    # --- checks

    def _fitted(self, values: Values | None) -> Values:
        if not self.channels:
            raise ConfigError(f"{self.name} is not fitted", mend="detector.fit(train)")
        return np.empty((0, 0)) if values is None else self._checked(values, self.channels)

    def _checked(self, values: Values, channels: int | None = None) -> Values:
        values = self.usable(values, channels)
        if len(values) < self.shortest:
            raise DataError(
                f"{len(values)} points are too few for {self.name}",
                allowed=f"{self.shortest} or more",
                mend="a smaller --model.window" if self.shortest > 1 else None,
            )
        return values

    def usable(self, values: Values, channels: int | None = None) -> Values:
        """float64 [T, C], however few; raises DataError for what cannot be computed with."""
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2:
            raise DataError(
                f"{self.name}: values {list(values.shape)}", allowed="[points, channels]"
            )
        width = values.shape[1]
        if width > 1 and not self.multivariate:
            raise DataError(
                f"{self.name} scores one channel, these are {width}",
                mend="--data.columns NAME, or a multivariate detector",
            )
        if channels is not None and width != channels:
            raise DataError(f"{self.name} was fitted on {channels} channels, these are {width}")
        check_finite(values, self.name)
        if np.abs(values).max(initial=0) > LARGEST:
            row = int(np.abs(values).max(axis=1).argmax())
            raise DataError(
                f"{self.name}: {np.abs(values).max():g} is too large to compute with",
                where=f"row {row}",
                allowed=f"up to {LARGEST:g}",
            )
        return values

    def _sound(self, scores: Scores, length: int) -> Scores:
        """The contract: as many scores as points, finite, not negative."""
        if scores.shape != (length,):
            raise RunError(f"{self.name} gave scores {list(scores.shape)} for {length} points")
        bad = ~(np.isfinite(scores) & (scores >= 0))
        if bad.any():
            row = int(bad.argmax())
            raise RunError(
                f"{self.name} gave the score {scores[row]}, and {int(bad.sum()) - 1} more such",
                where=f"row {row}",
                allowed="finite scores, 0 or more",
            )
        return scores


class Stream:
    """A fitted detector at work on a stream: it keeps the last `detector.memory` - 1 points.

    Until as many have come as it looks at, the score is 0: nothing is known yet.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self._recent = np.empty((0, detector.channels))

    def update(self, x: ArrayLike) -> float:
        """One point, a number or float64 [C] → its score, that of `score(…, causal=True)`."""
        return float(self.extend(np.asarray(x, dtype=np.float64).reshape(1, -1))[0])

    def extend(self, points: Values) -> Scores:
        """The next points, float64 [N, C] → their scores [N].

        Points that are refused, with DataError, leave the stream as it was.
        """
        points = self.detector.usable(points, self.detector.channels)
        joined = np.concatenate([self._recent, points])
        scores = np.zeros(len(points))
        if len(joined) >= self.detector.memory:
            scores = self.detector.score(joined, causal=True)[-len(points) :]
        self._recent = joined[max(0, len(joined) - self.detector.memory + 1) :]
        return scores


@dataclass
class WindowDetector(Detector):
    """A detector that scores windows of w points, [N, w × C], the points of one time side by side.

    A window's score is given to its middle, the first and last windows' also to the points at the
    ends (as TSB-AD does); or, causal, to its last point, and points before the first full window
    have 0.

    Args:
        window: w, in points.
    """

    window: int = 100

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ConfigError(f"{self.window} is out of range", where="window", allowed="1 or more")

    @property
    def memory(self) -> int:
        return self.window

    @abstractmethod
    def fit_windows(self, windows: NDArray[np.float64]) -> None:
        """Learn from windows [N, w × C]."""

    @abstractmethod
    def score_windows(self, windows: NDArray[np.float64]) -> Scores:
        """Windows [N, w × C] → scores [N]; each depends on its own window alone."""

    def _fit(self, train: Values) -> None:
        needed = (len(train) - self.window + 1) * self.window * self.channels * 8
        if needed > FIT_BYTES:
            raise DataError(
                f"{self.name}: the windows of {len(train):,} training points take {needed:,} bytes",
                allowed=f"{FIT_BYTES:,} bytes",
                mend="a shorter training part (--data.train_end) or a smaller --model.window",
            )
        self.fit_windows(windows_of(train, self.window))

    def _score(self, values: Values, causal: bool) -> Scores:
        blocks = [self.score_windows(block) for block in window_blocks(values, self.window)]
        return align(np.concatenate(blocks), self.window, causal)


def windows_of(values: Values, window: int) -> NDArray[np.float64]:
    """float64 [T, C] → [T - w + 1, w × C], the points of one time side by side."""
    found = sliding_window_view(values, window, axis=0)  # [N, C, w]
    return found.transpose(0, 2, 1).reshape(len(found), -1)


def window_blocks(values: Values, window: int) -> Iterator[NDArray[np.float64]]:
    """The windows of `windows_of` in blocks of at most BLOCK_BYTES (or one window)."""
    rows = max(1, BLOCK_BYTES // (8 * window * values.shape[1]))
    for start in range(0, len(values) - window + 1, rows):
        yield windows_of(values[start : start + rows + window - 1], window)


def align(scores: NDArray[np.float64], window: int, causal: bool) -> NDArray[np.float64]:
    """Scores (or contributions) of windows [T - w + 1, …] → of points [T, …]."""
    rest = window - 1
    before = rest if causal else (rest + 1) // 2
    edges = [(before, rest - before)] + [(0, 0)] * (scores.ndim - 1)
    return np.pad(scores, edges, mode="constant" if causal else "edge")
