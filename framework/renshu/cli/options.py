"""The options of a task and of the Trainer by dotted key. Imports no torch."""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from renshu.errors import ConfigError, near
from renshu.options import TrainerOptions
from renshu.task import Task

SECTIONS = ("data", "model", "training")
"""The parts of a task's options; `trainer` comes beside them."""

_PLAIN = (bool, int, float, str, type(None))
_ATTRIBUTE = re.compile(r"(\w+):\s+(.*)")


@dataclass(frozen=True)
class Option:
    """One option that a command line or file can give."""

    key: str
    hint: Any
    default: Any
    help: str

    @property
    def kind(self) -> str:
        """Its type in words, such as `int | null`."""
        if isinstance(self.hint, type):
            return self.hint.__name__
        return str(self.hint).replace("typing.", "").replace("None", "null")

    @property
    def example(self) -> str | None:
        """A value as one would give it: the default, if that is a plain one."""
        value = self.default
        if value is None or isinstance(value, list | tuple | dict):
            return None
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return f"for example --{self.key} {text}"


def list_options(task: Task) -> dict[str, Option]:
    """Every plain option of a task and of the Trainer: dotted key → option."""
    defaults = task.options()
    parts = {section: getattr(defaults, section) for section in SECTIONS}
    parts["trainer"] = TrainerOptions()
    return {o.key: o for name, part in parts.items() for o in _options_of(part, f"{name}.")}


def _options_of(section: Any, prefix: str) -> Iterator[Option]:
    """The plain fields of a dataclass instance, nested ones too; not what only Python can give."""
    hints = typing.get_type_hints(type(section))
    texts = attribute_help(type(section))
    for field in dataclasses.fields(section):
        key, value, hint = prefix + field.name, getattr(section, field.name), hints[field.name]
        if key == "trainer.logger":
            hint = bool | str | list[str] | None  # loggers by name; objects come from Python
        if key == "trainer.profiler":
            hint = str | None
        if dataclasses.is_dataclass(value):
            yield from _options_of(value, f"{key}.")
        elif _is_plain(hint):
            yield Option(key, hint, value, texts.get(field.name, ""))


def _is_plain(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType, list, tuple, dict):
        return all(part is Ellipsis or _is_plain(part) for part in typing.get_args(hint))
    return origin is Literal or hint in _PLAIN


def attribute_help(cls: type) -> dict[str, str]:
    """The lines under `Attributes:` of a class's docstring, by name."""
    block = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(block).split("\n"):
        if match := _ATTRIBUTE.fullmatch(line):
            name, found[match[1]] = match[1], match[2]
        elif name and line.startswith(" "):
            found[name] += " " + line.strip()
        else:
            break
    return found


def flatten(
    values: Mapping[str, Any], options: Mapping[str, Option], where: str, prefix: str = ""
) -> dict[str, Any]:
    """Nested or dotted keys as dotted keys; raises ConfigError for a key that is no option."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name
        if key in options:
            found = {key: value}
        elif not any(known.startswith(f"{key}.") for known in options):
            raise ConfigError(f"unknown key {key!r}", where=where, mend=near_key(key, options))
        elif isinstance(value, Mapping | None):
            found = flatten(value or {}, options, where, f"{key}.")
        else:
            raise ConfigError(f"{key}: expected keys and values, got {value!r}", where=where)
        for twice in flat.keys() & found.keys():
            raise ConfigError(f"the key {twice!r} is given twice", where=where)
        flat |= found
    return flat


def build(task: Task, values: Mapping[str, Any]) -> Any:
    """The task's options from dotted keys; their own checks raise ConfigError."""
    return _replace(task.options(), "", values)


def _replace(section: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    """A dataclass instance anew with the values of its dotted keys, so that its checks run."""
    new: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        key, old = prefix + field.name, getattr(section, field.name)
        if dataclasses.is_dataclass(old):
            new[field.name] = _replace(old, f"{key}.", values)
        elif key in values:
            new[field.name] = values[key]
    return dataclasses.replace(section, **new)


def near_key(key: str, names: Iterable[str]) -> str | None:
    """The nearest dotted name: first one with the same last word (`lr` → `training.lr`)."""
    names = list(names)
    same = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if same:
        return near(key, same) or f"did you mean {same[0]!r}?"
    sections = [] if "." in key else {name.partition(".")[0] for name in names}
    return near(key, sections) or near(key, names)
