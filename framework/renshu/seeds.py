"""Seeds: of the run, of every sample, and the random generators that they set."""

from __future__ import annotations

import functools
import os
import random
import sys
import zlib
from collections.abc import Callable, Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

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
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed)
    return seed


def run_seed(given: int | None) -> int:
    """The seed of a run: the given one, that of seed_everything, or one drawn from the system."""
    if given is not None:
        return given
    return int.from_bytes(os.urandom(4), "little") if _seed is None else _seed


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
    torch.default_generator.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
    random.seed(seed)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(seed & 0xFFFFFFFF)


class Isolation:
    """`with isolation:` runs code on generators of its own; the caller's stay as they were.

    numpy's generator is swapped instead of copied, which is 100 times cheaper. The own state goes
    on from one `with` to the next; `seed` starts it anew.

    Args:
        keep: False where the code inside seeds for itself each time, so that no own state is kept.
    """

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
        self._own: tuple[Any, Any] | None = None
        self._bits: Any = None
        self._callers: tuple[Any, Any, Any, Any] | None = None
        self._pending: int | None = None

    def seed(self, seed: int) -> None:
        """Start the own generators from `seed` at the next entry."""
        self._pending = seed

    def dump(self) -> Any:
        """The own generators' state, for a checkpoint; numpy's included."""
        bits = None if self._bits is None else self._bits.state
        return {"own": self._own, "numpy": bits}

    def load(self, state: Any) -> None:
        """Put back what `dump` gave."""
        self._pending = None
        if state["own"] is not None:
            self._own = (state["own"][0], _tuples(state["own"][1]))
        if state["numpy"] is not None:
            self._bits = sys.modules["numpy"].random.MT19937(0)
            self._bits.state = state["numpy"]

    def __enter__(self) -> Isolation:
        numpy = sys.modules.get("numpy")
        bits = state = None
        if numpy is not None:
            if self._bits is None:
                self._bits = numpy.random.MT19937(0)
            bits = numpy.random.get_bit_generator()
            # The swap drops the second number of a normal pair, which only the state shows.
            state = numpy.random.get_state(legacy=False)
            numpy.random.set_bit_generator(self._bits)
        self._callers = (torch.default_generator.get_state(), random.getstate(), bits, state)
        if self._pending is not None:
            seed_globals(self._pending)
            self._pending = None
        elif self._own is not None:
            torch.default_generator.set_state(self._own[0])
            random.setstate(self._own[1])
        return self

    def __exit__(self, *error: object) -> None:
        assert self._callers is not None
        torch_state, python_state, bits, numpy_state = self._callers
        if self._keep:
            self._own = (torch.default_generator.get_state(), random.getstate())
        torch.default_generator.set_state(torch_state)
        random.setstate(python_state)
        if bits is not None:
            sys.modules["numpy"].random.set_bit_generator(bits)
            if numpy_state.get("has_gauss"):
                sys.modules["numpy"].random.set_state(numpy_state)
        self._callers = None


class SampleSeeds:
    """Seeds every generator that a data set can draw from, before each sample.

    Besides the three global ones these are generators that the data set or its transforms own:
    numpy.random.Generator and RandomState, torch.Generator, random.Random, MONAI's Randomizable
    (`set_random_state`) and albumentations (`set_random_seed`). They are found once.
    """

    def __init__(self, *owners: Any) -> None:
        self._private = [setter for _, setter in private_generators(*owners)]

    def __len__(self) -> int:
        """How many generators of its own were found."""
        return len(self._private)

    def __call__(self, seed: int) -> None:
        seed_globals(seed)
        for number, setter in enumerate(self._private):
            setter(mix(seed + number))


def private_generators(*owners: Any, depth: int = 6) -> list[tuple[Any, Callable[[int], object]]]:
    """Generators that objects hold besides the global ones, each with what seeds it."""
    items = (item for owner in owners for item in walk(owner, depth))
    found = {id(item): (item, setter) for item in items if (setter := _setter(item)) is not None}
    return list(found.values())


def private_states(owner: Any) -> list[Any]:
    """States of the generators of torch, numpy and Python that an object holds."""
    return [_get_state(item) for item, _ in private_generators(owner)]


def set_private_states(owner: Any, states: list[Any]) -> None:
    """Put back what `private_states` gave for an object made in the same way."""
    found = [item for item, _ in private_generators(owner)]
    if len(found) != len(states):
        say(
            f"{type(owner).__name__} holds {len(found)} random generators, the checkpoint"
            f" {len(states)}: their draws will not be those of an uninterrupted run"
        )
        return
    for item, state in zip(found, states, strict=True):
        if isinstance(item, torch.Generator):
            item.set_state(state)
        elif isinstance(item, random.Random):
            item.setstate(_tuples(state))
        elif hasattr(item, "bit_generator"):
            item.bit_generator.state = state
        elif state is not None:
            item.set_state(state)


def _get_state(item: Any) -> Any:
    if isinstance(item, torch.Generator):
        return item.get_state()
    if isinstance(item, random.Random):
        return item.getstate()
    if hasattr(item, "bit_generator"):
        return item.bit_generator.state
    return item.get_state(legacy=False) if type(item).__name__ == "RandomState" else None


def _setter(item: Any) -> Callable[[int], object] | None:
    if isinstance(item, torch.Generator):
        return lambda seed: item.manual_seed(seed & 0x7FFFFFFFFFFFFFFF)
    if isinstance(item, random.Random):
        return item.seed
    if type(item).__module__.startswith("numpy.random"):
        return _numpy_setter(item)
    # Looked up in the class: asking an object may start whatever its __getattr__ does.
    if callable(getattr(type(item), "set_random_state", None)):
        return lambda seed: item.set_random_state(seed=seed & 0x7FFFFFFF)
    if callable(getattr(type(item), "set_random_seed", None)):
        return lambda seed: item.set_random_seed(seed & 0x7FFFFFFF)
    return None


def _numpy_setter(item: Any) -> Callable[[int], object] | None:
    if hasattr(item, "bit_generator"):
        bits = item.bit_generator

        def reseed(seed: int) -> None:
            bits.state = type(bits)(seed).state

        return reseed
    if type(item).__name__ == "RandomState":
        return lambda seed: item.seed(seed & 0xFFFFFFFF)
    return None


def walk(owner: Any, depth: int = 6) -> Iterator[Any]:
    """`owner` and what its attributes, lists, tuples and dicts hold, each object once."""
    seen: set[int] = set()
    stack = [(owner, depth)]
    while stack:
        item, left = stack.pop()
        if id(item) in seen or isinstance(item, (str, bytes, int, float, torch.Tensor, ModuleType)):
            continue
        seen.add(id(item))
        yield item
        if left:
            stack.extend((child, left - 1) for child in _children(item))


def _children(item: Any) -> list[Any]:
    if isinstance(item, (dict, list, tuple)):
        # A long one holds samples, not transforms.
        values = item.values() if isinstance(item, dict) else item
        return list(values) if len(item) <= 64 else []
    if isinstance(item, type) or type(item).__module__.startswith("numpy"):
        return []
    if isinstance(item, MethodType):
        return [item.__self__, item.__func__]
    if isinstance(item, functools.partial):
        return [item.func, item.args, item.keywords]
    if isinstance(item, FunctionType):
        cells = [cell.cell_contents for cell in item.__closure__ or () if _filled(cell)]
        return [*cells, item.__defaults__, item.__kwdefaults__, *_named_globals(item)]
    children = vars(item) if hasattr(item, "__dict__") else {}
    # Code written by the user may draw from generators that are global variables of its file.
    own = vars(type(item)).values() if _written(item) else ()
    methods = [f for f in own if isinstance(f, FunctionType)]
    return [v for k, v in children.items() if k not in ("trainer", "_trainer")] + methods


_LIBRARIES = ("torch", "numpy", "builtins", "renshu")


def _named_globals(function: FunctionType) -> list[Any]:
    """Generators that a function names, and functions and objects that may hold some."""
    found = [function.__globals__.get(name) for name in function.__code__.co_names]
    return [item for item in found if _setter(item) is not None or _written(item)]


def _written(item: Any) -> bool:
    """Whether it is a function of the user's, or an object of a class of the user's."""
    owner = item if isinstance(item, FunctionType) else type(item)
    return not isinstance(item, type) and not str(owner.__module__).startswith(_LIBRARIES)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def random_state() -> dict[str, Any]:
    """State of the process's global generators, for a checkpoint."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if (numpy := sys.modules.get("numpy")) is not None:
        state["numpy"] = numpy.random.get_state(legacy=False)
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    random.setstate(_tuples(state["python"]))
    if (numpy := sys.modules.get("numpy")) is not None and "numpy" in state:
        numpy.random.set_state(state["numpy"])
    if "cuda" in state:
        torch.cuda.set_rng_state_all(state["cuda"])


def _tuples(state: Any) -> Any:
    return tuple(_tuples(item) for item in state) if isinstance(state, (list, tuple)) else state
