"""What neural detectors have in common: scaling, windows, training by renshu's Trainer, state."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from renshu.errors import ConfigError, DataError
from renshu_tasks.anomaly.detector import Detector, Scores
from renshu_tasks.anomaly.learner import BestWeights, Learner, Network
from renshu_tasks.anomaly.scaling import moments
from renshu_tasks.anomaly.series import Values
from renshu_tasks.anomaly.windows import loader, windows_of

_FARTHEST = 1e6
"""Scaled values beyond count as that: their squares are finite in float32."""

_SCORED = 2048
WEIGHTS = "network."
"""What the names of the network's arrays begin with in a `State`."""


@dataclass
class NeuralDetector(Detector):
    """A network over windows. The last fifth of the training part is held out for validation.

    Args:
        window: points that the network sees.
        learning_rate: at the start.
        epochs: at most.
        patience: epochs without improvement on the validation part until it stops.
        batch_size: windows a step.
        validation: share of the training part, its end, that chooses the epoch.
        seed: of weights, order and dropout.
    """

    additive: ClassVar[bool] = True
    learned: ClassVar[tuple[str, ...]] = ("centre", "scale")

    window: int = 100
    learning_rate: float = 8e-4
    epochs: int = 50
    patience: int = 3
    batch_size: int = 128
    validation: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (
            ("window", self.smallest_window),
            ("epochs", 1),
            ("patience", 1),
            ("batch_size", 1),
        ):
            if getattr(self, name) < low:
                raise ConfigError(
                    f"{getattr(self, name)} is out of range", where=name, allowed=f"{low} or more"
                )
        if not 0 < self.validation < 1:
            raise ConfigError(
                f"{self.validation} is out of range", where="validation", allowed="between 0 and 1"
            )

    smallest_window: ClassVar[int] = 1

    @abstractmethod
    def make_network(self) -> Network:
        """An untrained network for `self.channels` channels."""

    @property
    def memory(self) -> int:
        """Points of the windows that the network is given."""
        return self.window

    # --- parts of a fit, which the command line's training calls one by one

    def build(self, channels: int) -> Network:
        """Make the network, its weights drawn by the seed."""
        self.channels = channels
        with _own_generator(self.seed):
            self.network = self.make_network()
        return self.network

    def fit_scaling(self, train: Values) -> None:
        """Mean and deviation of each channel, from the training part alone."""
        self.centre, self.scale = moments(train)

    def scaled(self, values: Values) -> Tensor:
        """float64 [T, C] → float32 [T, C] as the network wants it."""
        scaled = np.clip((values - self.centre) / self.scale, -_FARTHEST, _FARTHEST)
        return torch.from_numpy(scaled.astype(np.float32))

    def split(self, train: Values) -> tuple[Values, Values]:
        """The part to learn from and, after it, the part that chooses the epoch."""
        cut = int((1 - self.validation) * len(train))
        if min(cut, len(train) - cut) < self.memory:
            raise DataError(
                f"{self.name}: {len(train)} training points leave {len(train) - cut} to validate",
                allowed=f"{self.memory} or more in both parts",
                mend="a smaller --model.window, or a longer training part",
            )
        return train[:cut], train[cut:]

    def _fit(self, train: Values) -> None:
        from renshu.callbacks.early_stopping import EarlyStopping
        from renshu.trainer import Trainer

        self.build(self.channels)
        learn, choose = self.split(train)
        self.fit_scaling(learn)
        trainer = Trainer(
            max_epochs=self.epochs,
            seed=self.seed,
            callbacks=[
                EarlyStopping("val_loss", min_delta=1e-4, patience=self.patience),
                BestWeights(),
            ],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        with _own_generator(self.seed):
            trainer.fit(
                Learner(self.network, self.learning_rate),
                loader(self.scaled(learn), self.memory, self.batch_size, shuffle=True),
                loader(self.scaled(choose), self.memory, self.batch_size, shuffle=False),
            )

    # --- scores

    def _errors(self, values: Values) -> NDArray[np.float64]:
        """Contributions of the channels to each window's score, float64 [T - memory + 1, C]."""
        network = self.network.eval()
        device = next(network.parameters()).device
        blocks = windows_of(self.scaled(values), self.memory).split(_SCORED)
        with torch.inference_mode():
            errors = [network.errors(block.to(device)).cpu() for block in blocks]
        return torch.cat(errors).double().numpy()

    @abstractmethod
    def place(self, errors: NDArray[np.float64], causal: bool) -> NDArray[np.float64]:
        """Errors of windows [T - memory + 1, C] → contributions of points [T, C]."""

    def _contributions(self, values: Values, causal: bool) -> NDArray[np.float64]:
        return self.place(self._errors(values), causal)

    def _score(self, values: Values, causal: bool) -> Scores:
        return self._contributions(values, causal).sum(axis=1)

    # --- state

    def _arrays(self) -> dict[str, NDArray[Any]]:
        weights = self.network.state_dict().items()
        return super()._arrays() | {WEIGHTS + name: w.cpu().numpy() for name, w in weights}

    def _restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        super()._restore(arrays)
        weights = {
            name.removeprefix(WEIGHTS): torch.from_numpy(np.ascontiguousarray(array))
            for name, array in arrays.items()
            if name.startswith(WEIGHTS)
        }
        if weights:  # a Module that holds the network restores it by itself
            self.build(self.channels).load_state_dict(weights)


@contextlib.contextmanager
def _own_generator(seed: int) -> Iterator[None]:
    """torch's generators seeded, and as they were afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
