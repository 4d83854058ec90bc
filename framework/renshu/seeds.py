"""Seeds: of the run, of every sample, and the random generators that they set."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from renshu.errors import ConfigError
from renshu.messages import say

_MASK = (1 << 64) - 1
_seed: int | None = None


def seed_everything(seed: int | None = None, workers: bool = False, verbose: bool = True) -> int:
    """Seed Python, numpy and torch, and every run that follows.

    Args:
        seed: 0 to 2**32 - 1; None takes the environment variable RENSHU_SEED, else 0.
        workers: accepted for Lightning's sake; workers always draw from the run's seed.
        verbose: say which seed is set.

    Returns:
        The seed.
    """
    global _seed
    if seed is None:
        seed = int(os.environ.get("RENSHU_SEED", "0"))
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed {seed} is out of range", allowed="0 to 4294967295")
    if verbose:
        say(f"seed: {seed}")
    _seed = seed
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed)
    return seed


def run_seed(given: int | None) -> int:
    """The seed of a run: the given one, that of seed_everything, or one drawn from the system."""
    if given is None and _seed is None:
        given = int.from_bytes(os.urandom(4), "little")
        say(f"seed: {given} (drawn; Trainer(seed={given}) repeats this run)")
    return _seed if given is None else given  # type: ignore[return-value]


def mix(value: int) -> int:
    """A 64-bit integer → a well-mixed 64-bit integer (splitmix64: Steele et al., OOPSLA 2014)."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def derive(seed: int, name: str, *numbers: int) -> int:
    """A seed for the purpose `name` and the given counters, such as the epoch."""
    value = mix(seed ^ (zlib.crc32(name.encode()) << 32))
    for number in numbers:
        value = mix(value ^ number)
    return value


def seed_globals(seed: int) -> None:
    """Seed torch's CPU generator, numpy's global one and Python's: 7 µs together."""
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)


class SampleSeeds:
    """Seeds every generator that a data set can draw from, before each sample.

    Besides the three global ones these are generators that the data set or its transforms own:
    numpy.random.Generator and RandomState, torch.Generator, random.Random, MONAI's Randomizable
    (`set_random_state`) and albumentations (`set_random_seed`). They are found once.
    """

    def __init__(self, *owners: Any) -> None:
        self._own = [seeder for item in walk(*owners) if (seeder := _seeder(item)) is not None]

        self._twins = random.Random(), np.random.RandomState()
        self._all = False

    def read(self, dataset: Any, indices: Sequence[int], seeds: list[int]) -> list[Any]:
        """Samples, each as if every generator had been seeded for it.

        Few data sets draw from the generators of Python and numpy, whose seeding costs four fifths
        of all. So these are seeded for the first sample only, and twins of them tell whether it,
        or at the end whether any sample has drawn: then the others are read with them seeded, as
        they are from there on.
        """
        found = [] if self._all else self._read_quietly(dataset, indices, seeds)
        for number in range(len(found), len(indices)):
            self(seeds[number])
            found.append(dataset[indices[number]])
        return found

    def _read_quietly(self, dataset: Any, indices: Sequence[int], seeds: list[int]) -> list[Any]:
        """The samples; the first alone if one draws from the generators that are not seeded."""
        self(seeds[0])
        self._twins[0].seed(seeds[0])
        self._twins[1].seed(seeds[0] & 0xFFFFFFFF)
        found = [dataset[indices[0]]]
        if not (drawn := self._have_drawn()):
            for index, seed in zip(indices[1:], seeds[1:], strict=True):
                self(seed, everything=False)
                found.append(dataset[index])
            drawn = self._have_drawn()
        self._all = drawn
        return found[:1] if drawn else found

    def _have_drawn(self) -> bool:
        python, numpy = self._twins
        return (
            random.random() != python.random() or np.random.random_sample() != numpy.random_sample()
        )

    def __call__(self, seed: int, everything: bool = True) -> None:
        if everything:
            seed_globals(seed)
        else:
            torch.default_generator.manual_seed(seed)
        for number, seeder in enumerate(self._own):
            # 32 bits: every kind of generator takes them.
            seeder(mix(seed + number) & 0xFFFFFFFF)


def _seeder(item: Any) -> Callable[[int], object] | None:
    """What seeds an object that is a generator, or that owns some in a known way."""
    if isinstance(item, torch.Generator):
        return item.manual_seed
    if isinstance(item, (random.Random, np.random.RandomState)):
        return item.seed
    if isinstance(item, np.random.Generator):
        bits = item.bit_generator
        return lambda seed: setattr(bits, "state", type(bits)(seed).state)
    # Looked up in the class: asking an object may start whatever its __getattr__ does.
    for name in ("set_random_state", "set_random_seed"):
        if callable(getattr(type(item), name, None)):
            return getattr(item, name)
    return None


def walk(*owners: Any, depth: int = 6) -> list[Any]:
    """The objects, and what their attributes, lists, tuples and dicts hold, each once."""
    leaves = (str, bytes, int, float, torch.Tensor, np.ndarray, ModuleType, type)
    seen: dict[int, Any] = {}
    level = list(owners)
    for _ in range(depth + 1):
        new = {id(item): item for item in level if not isinstance(item, leaves)}
        new = {key: item for key, item in new.items() if key not in seen}
        seen |= new
        level = [child for item in new.values() for child in _children(item)]
    return list(seen.values())


def _children(item: Any) -> list[Any]:
    if isinstance(item, (dict, list, tuple)):
        # A long one holds samples, not transforms.
        few = len(item) <= 64
        return list(item.values() if isinstance(item, dict) else item) if few else []
    if isinstance(item, (MethodType, BuiltinMethodType)):
        return [item.__self__]
    if isinstance(item, partial):
        return [item.func, item.args, item.keywords]
    found = [v for k, v in getattr(item, "__dict__", {}).items() if k not in _ELSEWHERE]
    for cell in (isinstance(item, FunctionType) and item.__closure__) or ():
        with suppress(ValueError):  # a variable that is not yet set
            found.append(cell.cell_contents)
    return found


_ELSEWHERE = ("trainer", "_trainer")
"""Attributes that lead from a module or callback to the state of everything else."""


def private_states(owner: Any) -> list[Any]:
    """States of the generators of torch, numpy and Python that an object holds."""
    return [get() for get, _ in _accessors(owner)]


def set_private_states(owner: Any, states: list[Any]) -> None:
    """Put back what `private_states` gave for an object made in the same way."""
    accessors = _accessors(owner)
    if len(accessors) != len(states):
        held = f"{type(owner).__name__} holds {len(accessors)} random generators"
        say(f"{held}, the checkpoint {len(states)}: it will not draw as an uninterrupted run")
        return
    for (_, put), state in zip(accessors, states, strict=True):
        put(state)


def _accessors(owner: Any) -> list[tuple[Callable[[], Any], Callable[[Any], object]]]:
    """What gets and what sets the state of each generator that an object holds."""
    found: list[Any] = []
    for item in walk(owner):
        if isinstance(item, np.random.Generator):
            bits = item.bit_generator
            found.append((partial(getattr, bits, "state"), partial(setattr, bits, "state")))
        elif isinstance(item, random.Random):
            found.append((item.getstate, item.setstate))
        elif isinstance(item, (torch.Generator, np.random.RandomState)):
            found.append((item.get_state, item.set_state))
    return found


class Isolation:
    """`with isolation:` runs code on generators of its own; the caller's stay as they were.

    Args:
        keep: go on with the own state at the next `with`. False where the code inside seeds for
            itself each time: half the cost (50 µs).
    """

    def __init__(self, keep: bool = True) -> None:
        self.keep = keep
        self.state: dict[str, Any] | None = None
        """The own generators' state, for a checkpoint; what is set here counts at the next entry"""
        self._seed: int | None = None
        # Swapping numpy's generator is 100 times cheaper than setting its state.
        self._bits = np.random.MT19937(0)
        # numpy's stubs do not know of the swap.
        self._numpy: Any = np.random

    def seed(self, seed: int) -> None:
        """Start the own generators from `seed` at the next entry."""
        self._seed = seed

    def __enter__(self) -> Isolation:
        self._outside = self._numpy.get_bit_generator(), _cpu_state()
        self._numpy.set_bit_generator(self._bits)
        if self._seed is not None:
            seed_globals(self._seed)
        elif self.state is not None:
            _set_cpu_state(self.state)
        self._seed = None
        return self

    def __exit__(self, *error: object) -> None:
        if self.keep:
            self.state = _cpu_state()
        bits, state = self._outside
        self._numpy.set_bit_generator(bits)
        # The swap drops the second number of a normal pair, which only the state holds.
        _set_cpu_state(state, with_numpy=bool(state["numpy"]["has_gauss"]))


def _cpu_state() -> dict[str, Any]:
    return {
        "torch": torch.default_generator.get_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
    }


def _set_cpu_state(state: dict[str, Any], with_numpy: bool = True) -> None:
    torch.default_generator.set_state(state["torch"])
    random.setstate(state["python"])
    if with_numpy:
        np.random.set_state(state["numpy"])


def random_state() -> dict[str, Any]:
    """State of the process's global generators, for a checkpoint."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    return {**_cpu_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    _set_cpu_state(state)
    if state["cuda"] is not None:
        torch.cuda.set_rng_state_all(state["cuda"])
