"""Batches of like length that stay random, by number of samples or by a budget of tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler

from renshu.errors import CheckpointError, ConfigError
from renshu.seeds import derive

Batches = list[list[int]]
"""Rows of the samples, batch by batch."""


class EpochBatches(Sampler[list[int]]):
    """Batches arranged anew in every epoch; what is in them is said by `_arrange`.

    An epoch is a function of its seed alone. `state_dict` says where in it the iteration stands, so
    that a resume comes back to that batch without drawing or reading those before.

    Args:
        count: batches of an epoch, the same in all.
        seed: of the order; None draws one from torch's generator at the start of every epoch, which
            in a Trainer follows from the run's seed and the epoch.
    """

    def __init__(self, count: int, seed: int | None) -> None:
        self.count, self.seed = count, seed
        self.epoch, self._given, self._drawn = 0, 0, 0
        self._resumed = False

    def _arrange(self, generator: torch.Generator) -> Batches:
        """All batches of an epoch."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.count

    def set_epoch(self, epoch: int) -> None:
        """The next iteration gives this epoch, from its start."""
        self.epoch, self._given, self._resumed = epoch, 0, False

    def __iter__(self) -> Iterator[list[int]]:
        if not self._resumed:
            self._given = 0
            # Drawn with a given seed as well, so that what follows does not depend on that.
            self._drawn = int(torch.empty((), dtype=torch.int64).random_())
        self._resumed = False
        seed = self._drawn if self.seed is None else derive(self.seed, "batches", self.epoch)
        generator = torch.Generator().manual_seed(seed & (2**63 - 1))
        for batch in self._arrange(generator)[self._given :]:
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {"given": self._given, "drawn": self._drawn, "batches": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on in the present epoch; CheckpointError where an epoch was another before."""
        if state["batches"] != self.count:
            raise CheckpointError(
                f"an epoch has {self.count} batches, and had {state['batches']} before",
                mend="continue with the data, batch size and token budget of the run",
            )
        self._given, self._drawn, self._resumed = state["given"], state["drawn"], True


class LengthBatches(EpochBatches):
    """Batches of samples of nearly equal length, in random order and new in every epoch.

    Each sample's length is multiplied by a random factor of 1 ± `jitter`, the samples are sorted
    by that, cut at fixed places, and the batches shuffled. So padding stays within about `jitter`,
    neighbours change from epoch to epoch, and no drift from long to short is left in an epoch (as
    sorting within mega-batches leaves it). The cuts depend on the lengths alone: every epoch has
    the same number of batches, and a schedule counted in steps ends where it should.

    Args:
        lengths: tokens of each sample, after truncation. [N]
        batch_size: most samples a batch; None: as many as `max_tokens` allows.
        max_tokens: most tokens a batch, padding included; None: as many as `batch_size` gives.
        jitter: how far lengths are disturbed, as a share of them.
        shuffle: False gives one fixed order, longest first, as suits evaluation.
        seed: see `EpochBatches`.

    Raises:
        ConfigError: no limit is given, or a sample is longer than `max_tokens`.
    """

    def __init__(
        self,
        lengths: Sequence[int] | Tensor,
        batch_size: int | None = None,
        max_tokens: int | None = None,
        *,
        jitter: float = 0.04,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        self.lengths = torch.as_tensor(lengths, dtype=torch.int64)
        self.jitter, self.shuffle = jitter if shuffle else 0.0, shuffle
        if batch_size is None and max_tokens is None:
            raise ConfigError("neither batch_size nor max_tokens says how large a batch is")
        if max_tokens is not None:
            refuse_longer(self.lengths, max_tokens, "max_tokens")
        self.cuts = _cuts(self._longest(), batch_size, max_tokens)
        super().__init__(len(self.cuts) - 1, seed)

    def _longest(self) -> list[int]:
        """What the sample at each place of any epoch's order is not longer than. [N]

        The p shortest samples have disturbed lengths up to 1 + jitter times the p-th length, so the
        p-th disturbed length is no more than that; the true length is it over 1 - jitter at most.
        """
        ratio = (1 + self.jitter) / (1 - self.jitter)
        return (self.lengths.sort().values * ratio).long().tolist()

    def _arrange(self, generator: torch.Generator) -> Batches:
        places = list(zip(self.cuts[:-1], self.cuts[1:], strict=True))
        if not self.shuffle:
            order = self.lengths.argsort(stable=True).tolist()
            return [order[start:end] for start, end in reversed(places)]
        noise = torch.rand(len(self.lengths), generator=generator, dtype=torch.float64)
        # Equal lengths are in random order also without jitter.
        mixed = torch.randperm(len(self.lengths), generator=generator)
        disturbed = self.lengths[mixed] * (1 + self.jitter * (2 * noise - 1))
        order = mixed[disturbed.argsort(stable=True)].tolist()
        shuffled = torch.randperm(len(places), generator=generator).tolist()
        return [order[slice(*places[number])] for number in shuffled]


def refuse_longer(lengths: Tensor, most: int, limit: str) -> None:
    """Raise ConfigError for a sample of more than `most` tokens, naming its row."""
    if (lengths > most).any():
        row = int(lengths.argmax())
        raise ConfigError(
            f"a sample of {lengths[row]} tokens does not fit into {limit}={most}",
            where=f"row {row}",
            mend=f"{limit}={lengths[row]} or more, or truncate to fewer tokens",
        )


def _cuts(longest: list[int], batch_size: int | None, max_tokens: int | None) -> list[int]:
    """Where the batches begin in an order with these ascending lengths, and the end."""
    cuts = [0]
    for place, length in enumerate(longest):
        size = place + 1 - cuts[-1]
        too_many = batch_size is not None and size > batch_size
        too_long = max_tokens is not None and size > 1 and size * length > max_tokens
        if too_many or too_long:
            cuts.append(place)
    return [*cuts, len(longest)] if longest else cuts


def padding_ratio(lengths: Sequence[int] | Tensor, batches: Batches) -> float:
    """Padded over real tokens when each batch is padded to its longest sample; 1 is no padding."""
    found = torch.as_tensor(lengths)
    parts = [found[batch] for batch in batches]
    return float(sum(len(p) * int(p.max()) for p in parts) / sum(int(p.sum()) for p in parts))


def repeated_neighbours(first: Batches, second: Batches) -> float:
    """How much more often than in fully random order two neighbours are neighbours again.

    Of the pairs of samples that share a batch of one epoch, the share that does so in another, over
    the share expected from random batches of the same sizes. 1 is fully random; sorting by length
    without disturbance gives up to the number of batches.
    """
    batch_of = {row: number for number, batch in enumerate(second) for row in batch}
    again = sum(_pairs(Counter(batch_of[row] for row in batch).values()) for batch in first)
    expected = _pairs(map(len, second)) / _pairs([len(batch_of)])
    return again / _pairs(map(len, first)) / expected


def length_drift(lengths: Sequence[int] | Tensor, batches: Batches) -> float:
    """Correlation of a batch's mean length with that of the batch before; 0 is random order.

    Near 1 the lengths, and with them the losses, run up and down as the teeth of a saw.
    """
    found = torch.as_tensor(lengths).double()
    means = torch.stack([found[batch].mean() for batch in batches])
    return float(torch.corrcoef(torch.stack([means[:-1], means[1:]]))[0, 1])


def _pairs(sizes: Iterable[int]) -> int:
    return sum(size * (size - 1) // 2 for size in sizes)
