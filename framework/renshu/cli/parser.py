"""Options of a task and of the Trainer as a command line. Imports no torch.

Every option is a plain value (number, text, choice, list, mapping), so no value can name code to
import. Values come from, strongest first: flag, file, preset, default.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Literal

from renshu.cli import yaml_file
from renshu.errors import ConfigError, near
from renshu.options import TrainerOptions
from renshu.task import Task, find_task

SECTIONS = ("data", "model", "training")
"""The parts of a task's options; `trainer` comes beside them."""

DEFAULT = "default"
"""A task's preset of this name holds for every run: its defaults for the Trainer's options."""

_PLAIN = (bool, int, float, str, type(None))
_ATTRIBUTE = re.compile(r"(\w+):\s+(.*)")


@dataclass(frozen=True)
class Option:
    """One option: its dotted key, type, default and help."""

    key: str
    hint: Any
    default: Any
    help: str


@dataclass(frozen=True)
class Request:
    """What the user asked `renshu train` to do.

    Attributes:
        task: the task found.
        options: instance of the task's options class.
        trainer: the Trainer's arguments.
        config: what `config.yaml` holds; runs again unchanged.
        ckpt_path: "last", "best", a path, or None for a fresh run.
        print_config: print `config` and stop.
        allow_changed_data: resume although the data are not those of the run.
    """

    task: Task
    options: Any
    trainer: dict[str, Any]
    config: dict[str, Any]
    ckpt_path: str | None
    print_config: bool
    allow_changed_data: bool


def parse_train(arguments: Sequence[str]) -> Request:
    """Read the arguments after `renshu train`; raises ConfigError, and SystemExit(0) for --help."""
    arguments = list(arguments)
    path = _early(arguments, "--config")
    file = yaml_file.read_mapping(Path(path)) if path else {}
    positional = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    task = find_task(_task_name(positional, file, path))
    options = {option.key: option for option in list_options(task)}
    preset_name = _early(arguments, "--preset") or _take_text(file, "preset", path)
    file.pop("task", None)
    given = _flatten(task.presets.get(DEFAULT, {}), options, f"preset {DEFAULT}")
    given |= _flatten(_preset(task, preset_name), options, f"preset {preset_name}")
    given |= _flatten(file, options, path or "")
    parser = _Parser(task, options.values())
    _check_names(arguments, parser.names(), options)
    values = parser.read(given, path, arguments)
    return _request(task, options.values(), values, preset_name)


def list_options(task: Task) -> Iterator[Option]:
    """Every option of a task and of the Trainer that a command line can give."""
    defaults = task.options()
    for section in SECTIONS:
        yield from _options_of(getattr(defaults, section), f"{section}.")
    yield from _options_of(TrainerOptions(), "trainer.")


def build_options(task: Task, values: Mapping[str, Any]) -> Any:
    """The task's options from dotted keys; their own checks raise ConfigError."""
    defaults = task.options()
    return dataclasses.replace(
        defaults, **{s: _rebuild(getattr(defaults, s), f"{s}.", values) for s in SECTIONS}
    )


def read_config(path: Path) -> tuple[Task, Any, dict[str, Any]]:
    """The task, its options and the Trainer's arguments of a saved `config.yaml`."""
    request = parse_train(["--config", str(path)])
    return request.task, request.options, request.trainer


def task_names() -> list[str]:
    """The names of the installed tasks; imports none of them."""
    return sorted(point.name for point in entry_points(group="renshu.tasks"))


def _task_name(positional: str | None, file: Mapping[str, Any], path: str | None) -> str:
    in_file = _take_text(file, "task", path)
    if positional and in_file and positional != in_file:
        raise ConfigError(
            f"the file is for the task {in_file!r}, not {positional!r}", where=path, mend=in_file
        )
    name = positional or in_file
    if name is None:
        raise ConfigError(
            "no task is named",
            allowed=", ".join(task_names()) or "none is installed",
            mend="renshu train TASK, or --config with a file that has `task:`",
        )
    return name


def _take_text(file: Mapping[str, Any], key: str, path: str | None) -> str | None:
    value = file.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{key}: expected a name, got {value!r}", where=path)
    return value


def _early(arguments: list[str], flag: str) -> str | None:
    """The value of a flag that decides what else can be parsed, taken out of `arguments`."""
    found = None
    for index in reversed(range(len(arguments))):
        head, equals, value = arguments[index].partition("=")
        if head != flag:
            continue
        if not equals:
            if index + 1 == len(arguments) or arguments[index + 1].startswith("--"):
                raise ConfigError(f"{flag} needs a value")
            value = arguments.pop(index + 1)
        del arguments[index]
        found = found or value
    return found


def _preset(task: Task, name: str | None) -> Mapping[str, Any]:
    if name is None:
        return {}
    if name not in task.presets:
        raise ConfigError(
            f"{task.name} has no preset {name!r}",
            allowed=", ".join(task.presets) or "none",
            mend=near(name, task.presets),
        )
    return task.presets[name]


def _flatten(
    values: Mapping[str, Any], options: Mapping[str, Option], where: str, prefix: str = ""
) -> dict[str, Any]:
    """Nested or dotted keys as dotted keys; raises ConfigError for a key that is no option."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{prefix}{name}"
        if key == "preset":
            continue
        if key in options:
            found = {key: value}
        elif any(known.startswith(f"{key}.") for known in options):
            if value is not None and not isinstance(value, Mapping):
                raise ConfigError(f"{key}: expected keys and values, got {value!r}", where=where)
            found = _flatten(value or {}, options, where, f"{key}.")
        else:
            raise ConfigError(f"unknown key {key!r}", where=where, mend=_near_key(key, options))
        for twice in flat.keys() & found.keys():
            raise ConfigError(f"the key {twice!r} is given twice", where=where)
        flat |= found
    return flat


def _near_key(key: str, names: Iterable[str]) -> str | None:
    """The nearest dotted name: first one with the same last word (`lr` → `training.lr`)."""
    names = list(names)
    same = [name for name in names if name.rpartition(".")[2] == key.rpartition(".")[2]]
    if same:
        return near(key, same) or f"did you mean {same[0]!r}?"
    return near(key, [] if "." in key else {name.partition(".")[0] for name in names}) or near(
        key, names
    )


def _check_names(
    arguments: Sequence[str], names: Sequence[str], options: Mapping[str, Option]
) -> None:
    """Refuse a mistyped flag before anything is parsed, with the nearest name."""
    for argument in arguments:
        name = argument.partition("=")[0]
        if not name.startswith("--") or name == "--" or name in names:
            continue
        parent = name[2:].rstrip("+").rpartition(".")[0]
        if name.endswith("+") and name[:-1] in names:
            continue
        if parent in options and "dict" in _say(options[parent].hint):
            continue
        found = _near_key(name[2:], [known[2:] for known in names])
        mend = found.replace("'", "'--", 1) if found else "renshu train TASK --help"
        raise ConfigError(f"unknown option {name}", mend=mend)


def _options_of(section: Any, prefix: str) -> Iterator[Option]:
    """The plain fields of a dataclass instance, nested ones too; not what only Python can give."""
    hints = typing.get_type_hints(type(section))
    texts = attribute_help(type(section))
    for field in dataclasses.fields(section):
        value, hint = getattr(section, field.name), hints[field.name]
        if field.name == "logger" and isinstance(section, TrainerOptions):
            hint = bool | str | list[str] | None
        if dataclasses.is_dataclass(value):
            yield from _options_of(value, f"{prefix}{field.name}.")
        elif _is_plain(hint):
            yield Option(f"{prefix}{field.name}", hint, value, texts.get(field.name, ""))


def _is_plain(hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType, list, tuple, dict):
        return all(_is_plain(part) or part is Ellipsis for part in typing.get_args(hint))
    return origin is Literal or hint in _PLAIN


def _rebuild(section: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    """A dataclass instance anew with the values of its dotted keys, so that its checks run."""
    new: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        key, old = f"{prefix}{field.name}", getattr(section, field.name)
        if dataclasses.is_dataclass(old):
            new[field.name] = _rebuild(old, f"{key}.", values)
        elif key in values:
            new[field.name] = values[key]
    return dataclasses.replace(section, **new)


def attribute_help(cls: type) -> dict[str, str]:
    """The lines under `Attributes:` of a class's docstring, by name."""
    _, _, block = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(block).split("\n") if block else []:
        match = _ATTRIBUTE.fullmatch(line)
        if match:
            name, found[match.group(1)] = match.group(1), match.group(2)
        elif name and line.startswith(" "):
            found[name] += " " + line.strip()
        else:
            break
    return found


class _Parser:
    """The jsonargparse parser of one task, fed with our own reading of YAML."""

    def __init__(self, task: Task, options: Iterable[Option]) -> None:
        import jsonargparse
        import yaml

        jsonargparse.set_loader("renshu", yaml_file.loads, exceptions=(yaml.YAMLError,))
        self.options = list(options)
        self.parser = jsonargparse.ArgumentParser(
            prog=f"renshu train {task.name}",
            usage=f"renshu train {task.name} [--config FILE] [--preset NAME] [options]",
            description=task.summary,
            allow_abbrev=False,
            exit_on_error=False,
            default_env=False,
            print_config=None,  # ours below prints what our own reader takes back
            parser_mode="renshu",
        )
        self._add_run_options(task)
        groups = {
            section: self.parser.add_argument_group(section) for section in (*SECTIONS, "trainer")
        }
        for option in self.options:
            groups[option.key.partition(".")[0]].add_argument(
                f"--{option.key}", type=option.hint, default=option.default, help=option.help
            )

    def _add_run_options(self, task: Task) -> None:
        add = self.parser.add_argument
        presets = ", ".join(name for name in task.presets if name != DEFAULT) or "none"
        add("--config", type=str | None, help="YAML file with any of the options below")
        add("--preset", type=str | None, help=f"named set of values: {presets}")
        add("--ckpt_path", type=str | None, help="continue from last, best or a path")
        add("--print_config", action="store_true", help="print all values as YAML and stop")
        add("--allow_changed_data", action="store_true", help="resume although the data changed")

    def names(self) -> list[str]:
        own = ["config", "preset", "ckpt_path", "print_config", "allow_changed_data", "help"]
        return [f"--{name}" for name in own] + [f"--{option.key}" for option in self.options]

    def read(
        self, given: Mapping[str, Any], path: str | None, arguments: Sequence[str]
    ) -> dict[str, Any]:
        """All values by dotted key: `given` checked first, then the flags over it."""
        import jsonargparse

        where = path
        try:
            base = self.parser.parse_object(_nest(given), env=False)
            where = None
            namespace = self.parser.parse_args(list(arguments), namespace=base, env=False)
        except jsonargparse.ArgumentError as error:
            raise self._explain(error, where) from error
        return {key: namespace[key] for key in (*self._own(), *(o.key for o in self.options))}

    def _own(self) -> tuple[str, ...]:
        return ("ckpt_path", "print_config", "allow_changed_data")

    def _explain(self, error: Exception, path: str | None) -> ConfigError:
        """The parser's message in our words: key, type wanted, value given, file."""
        text = str(error)
        match = re.search(r'(?:Parser key "|argument --)([\w.]+)', text)
        hints = {option.key: option.hint for option in self.options}
        key = match.group(1) if match else ""
        if key not in hints:
            return ConfigError(text.split("\n")[0], where=path)
        if "expected one argument" in text:
            return ConfigError(f"--{key} needs a value", allowed=_say(hints[key]))
        value = re.search(r"(?:Given value|Got value): (.*)", text)
        got = f", got {value.group(1)}" if value else ""
        return ConfigError(
            f"{key}: expected {_say(hints[key])}{got}",
            where=path or f"--{key}",
            mend=f"see renshu train TASK --help for {key}",
        )


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return nested


def _say(hint: Any) -> str:
    """A type in words: `int or null`, `one of norm, value`."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_say(part) for part in typing.get_args(hint))
    if origin is Literal:
        return "one of " + ", ".join(str(value) for value in typing.get_args(hint))
    if hint is type(None):
        return "null"
    return getattr(hint, "__name__", str(hint)) if origin is None else str(hint)


def _request(
    task: Task, options: Iterable[Option], values: Mapping[str, Any], preset: str | None
) -> Request:
    trainer = {o.key[8:]: values[o.key] for o in options if o.key.startswith("trainer.")}
    config = {"task": task.name, "preset": preset}
    config |= _nest({o.key: _as_yaml(values[o.key]) for o in options})
    return Request(
        task=task,
        options=build_options(task, values),
        trainer=trainer,
        config=config,
        ckpt_path=values["ckpt_path"],
        print_config=values["print_config"],
        allow_changed_data=values["allow_changed_data"],
    )


def _as_yaml(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_as_yaml(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _as_yaml(item) for key, item in value.items()}
    return value
