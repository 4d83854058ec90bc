"""The arguments of `renshu train`. Imports no torch.

Every option is a plain value (number, text, choice, list, mapping), so no value can name code to
import. Values come from, strongest first: flag, file, preset, default.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import jsonargparse
import yaml

from renshu.cli import options as opts
from renshu.cli import yaml_file
from renshu.errors import ConfigError, near
from renshu.task import Task, find_task

DEFAULT = "default"
"""A task's preset of this name holds for every run: its defaults for the Trainer's options."""

_RUN = {
    "config": "YAML file with any of the options below",
    "preset": "named set of values",
    "ckpt_path": "continue from last, best or a path",
}
_SWITCHES = {
    "print_config": "print all values as YAML and stop",
    "allow_changed_data": "go on although the data are not those of the run",
}


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


def parse_train(arguments: Sequence[str], flags: Sequence[str] = ()) -> Request:
    """Read the arguments after `renshu train`; raises ConfigError, and SystemExit(0) for --help.

    `flags` are those of another command that were read before; they are offered for mistyped ones.
    """
    early, rest = _early(list(arguments))
    file = yaml_file.read_mapping(Path(early.config)) if early.config else {}
    task = find_task(_word("task", early, file))
    preset = _word("preset", early, file)
    options = opts.list_options(task)
    given = opts.flatten(task.presets.get(DEFAULT, {}), options, DEFAULT)
    given |= opts.flatten(_preset(task, preset), options, f"preset {preset}")
    given |= opts.flatten(file, options, early.config)
    parser = _parser(task, options)
    where = early.config
    try:
        # The file by itself first: what is wrong in it is said even where a flag covers it.
        base = parser.parse_object(given, env=False)
        where = None
        found = parser.parse_args(rest, namespace=base, env=False)
    except jsonargparse.ArgumentError as error:
        raise _explain(str(error), options, where, flags or list(_RUN)) from error
    values = {key: found[key] for key in options}
    sections = {name: found[name].as_dict() for name in (*opts.SECTIONS, "trainer")}
    return Request(
        task=task,
        options=opts.build(task, values),
        trainer={key[8:]: values[key] for key in options if key.startswith("trainer.")},
        config={"task": task.name, "preset": preset} | sections,
        ckpt_path=found["ckpt_path"],
        print_config=found["print_config"],
        allow_changed_data=found["allow_changed_data"],
    )


def task_names() -> list[str]:
    """The names of the installed tasks; imports none of them."""
    return sorted(point.name for point in entry_points(group="renshu.tasks"))


def _early(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What decides which options there are (task, file, preset), and the other arguments."""
    named = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--config")
    parser.add_argument("--preset")
    try:
        early, rest = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise ConfigError(str(error)) from error
    early.task = named
    return early, rest


def _word(key: str, early: argparse.Namespace, file: dict[str, Any]) -> Any:
    """The task or preset: from the command line, else taken out of the file."""
    given, in_file = getattr(early, key), file.pop(key, None)
    if not isinstance(in_file, str | None):
        raise ConfigError(f"{key}: expected a name, got {in_file!r}", where=early.config)
    if key == "task" and given and in_file and given != in_file:
        said = f"the file is for the task {in_file!r}, not {given!r}"
        raise ConfigError(said, where=early.config)
    if key == "task" and not given and not in_file:
        mend = "renshu train TASK, or --config with a file that has `task:`"
        raise ConfigError("no task is named", allowed=", ".join(task_names()), mend=mend)
    return given or in_file


def _preset(task: Task, name: str | None) -> Mapping[str, Any]:
    if name is None or name in task.presets:
        return task.presets[name] if name else {}
    names = ", ".join(task.presets) or "none"
    said = f"{task.name} has no preset {name!r}"
    raise ConfigError(said, allowed=names, mend=near(name, task.presets))


def _parser(task: Task, options: Mapping[str, opts.Option]) -> jsonargparse.ArgumentParser:
    """One flag an option; values in YAML are read by our own reader."""
    jsonargparse.set_loader("renshu", yaml_file.loads, exceptions=(yaml.YAMLError,))
    parser = jsonargparse.ArgumentParser(
        prog=f"renshu train {task.name}",
        usage=f"renshu train {task.name} [--config FILE] [--preset NAME] [options]",
        description=f"{task.summary} Presets: {', '.join(task.presets) or 'none'}.",
        allow_abbrev=False,
        exit_on_error=False,
        default_env=False,
        print_config=None,  # ours prints what our own reader takes back
        parser_mode="renshu",
    )
    for name, text in _RUN.items():
        parser.add_argument(f"--{name}", type=str | None, help=text)
    for name, text in _SWITCHES.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    groups = {name: parser.add_argument_group(name) for name in (*opts.SECTIONS, "trainer")}
    for key, option in options.items():
        groups[key.partition(".")[0]].add_argument(
            f"--{key}", type=option.hint, default=option.default, help=option.help
        )
    return parser


def _explain(
    text: str, options: Mapping[str, opts.Option], file: str | None, flags: Sequence[str]
) -> ConfigError:
    """The parser's message in our words: key, type wanted, value given, file."""
    if unknown := re.search(r"unrecognized arguments: --([\w.+-]+)", text):
        near = opts.near_key(unknown[1], [*flags, *_SWITCHES, *options])
        mend = near and near.replace("'", "'--", 1)
        return ConfigError(f"unknown option --{unknown[1]}", mend=mend)
    found = re.search(r'(?:Parser key "|argument --)([\w.]+)', text)
    option = options.get(found[1]) if found else None
    if option is None:
        return ConfigError(text.split("\n")[0], where=file)
    value = re.search(r"(?:Given value|Got value): (.*)", text)
    got = f"got {value[1]}" if value else "got no value"
    return ConfigError(
        f"{option.key}: expected {option.kind}, {got}",
        where=file or f"--{option.key}",
        mend=option.example,
    )
