"""`renshu new`: a project of your own that trains, is tested and can be served."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.cli import yaml_file
from renshu.cli.trained import CommandParser
from renshu.errors import ConfigError, unknown

if TYPE_CHECKING:
    from renshu.cli.main import Session

_SHOWN = {True: "default", False: "now"}


def find_template(name: str) -> Any:
    """The installed template of that name; raises ConfigError with the names there are."""
    found = {point.name: point for point in entry_points(group="renshu.templates")}
    if name not in found:
        raise unknown("template", name, sorted(found))
    return found[name].load()


def run(arguments: Sequence[str], session: Session) -> int:
    """Make a project, or with --dry-run print its tree."""
    helping = not {"-h", "--help"}.isdisjoint(arguments)
    parser = CommandParser("new", f"{__doc__} With no NAME it asks.")
    parser.usage = "renshu new [TASK NAME] [--answers FILE] [--into FOLDER] [--dry-run] [options]"
    parser.epilog = "example: renshu new image_classification flower-photos --docker none"
    parser.add_argument("--answers", type=Path, help="YAML file of answers, such as .renshu.yaml")
    parser.add_argument("--into", type=Path, default=Path(), help="folder above; default: this one")
    parser.add_argument("--dry-run", action="store_true", help="print the tree, make nothing")
    given = [word for word in arguments if word not in ("-h", "--help")]
    asked, rest = parser.parse_known_args(given)
    words = list(takewhile(lambda word: not word.startswith("-"), rest))
    options = rest[len(words) :]
    if len(words) > 2:
        mend = f"renshu new {words[0]} {'-'.join(words[1:])}"
        raise ConfigError(f"too many words: {' '.join(words[2:])}", allowed="TASK NAME", mend=mend)
    file = yaml_file.read_mapping(asked.answers) if asked.answers else {}
    task = words[0] if words else file.get("template")
    if helping and task is None:
        print(parser.format_help(), *_offered(), "", "renshu new TASK --help shows more", sep="\n")
        return 0
    template = find_template(str(task or _ask_task()))
    add_options(parser, template.questions.values())
    if helping:
        print(parser.format_help())
        return 0
    answers = {key: file[key] for key in file if key not in ("template", "version")}
    template.complete(answers, asked.answers)
    answers |= read_options(template.questions.values(), options)
    if words[1:]:
        answers["name"] = words[1]
    if "name" not in answers:
        _ask(template, answers)
    return _make(template, template.complete(answers), asked.into, asked.dry_run)


def _make(template: Any, answers: dict[str, Any], into: Path, dry_run: bool) -> int:
    if dry_run:
        print(*template.tree(answers), sep="\n")
        return 0
    target = template.create(answers, into)
    package = target.name.replace("-", "_")
    print(f"{target} is made; its README.md says the rest\n")
    print(f"  cd {target}\n  python -m {package}.train")
    return 0


def add_options(
    parser: CommandParser, questions: Iterable[Any], now: Mapping[str, object] | None = None
) -> None:
    """One option for each question of a template, which checks the value.

    `now` are the answers of a project that is there; without them help shows the defaults.
    """
    group = parser.add_argument_group("options of the project")
    for question in questions:
        value = _word(question.default if now is None else now.get(question.key))
        parts = [question.text, ", ".join(question.choices), f"{_SHOWN[now is None]}: {value}"]
        text = "; ".join(part for part in parts if part).replace("%", "%%")
        group.add_argument(f"--{question.key}", metavar="…", help=text)


def read_options(questions: Collection[Any], options: list[str]) -> dict[str, str]:
    """The options given; raises ConfigError for others, with the nearest."""
    parser = CommandParser("new", "")
    add_options(parser, questions)
    given, rest = parser.parse_known_args(options)
    if rest:
        raise unknown("option", rest[0].partition("=")[0], [f"--{q.key}" for q in questions])
    return {key: value for key, value in vars(given).items() if value is not None}


def _word(answer: object) -> Any:
    """An answer as one types it."""
    return ("yes" if answer else "no") if isinstance(answer, bool) else answer


def words(given: Sequence[str]) -> list[str]:
    """What may follow on the command line: a template, then its options."""
    if not given:
        return _names()
    return [f"--{key}" for key in find_template(given[0]).questions] if len(given) > 1 else []


def _names() -> list[str]:
    return sorted(point.name for point in entry_points(group="renshu.templates"))


def _offered() -> list[str]:
    return ["tasks:", *(f"  {name:<22}{find_template(name).summary}" for name in _names())]


def _ask_task() -> str:
    if not sys.stdin.isatty():
        allowed = ", ".join(_names())
        raise ConfigError("no task is named", allowed=allowed, mend="renshu new TASK NAME")
    print(*_offered(), sep="\n")
    return _prompt("Task", _names())


def _ask(template: Any, answers: dict[str, Any]) -> None:
    """Ask for what is missing."""
    if not sys.stdin.isatty():
        raise ConfigError("no name is given", mend=f"renshu new {template.name} NAME")

    def read(question: Any) -> str:
        return _prompt(question.text, question.choices, _word(question.default))

    template.ask(answers, read, print)


def _prompt(text: str, choices: Sequence[str], default: Any = ...) -> str:
    from rich.prompt import Prompt

    try:
        return Prompt.ask(text, choices=list(choices) or None, default=default)
    except EOFError:
        mend = "renshu new TASK NAME"
        raise ConfigError("the answers ended before the last question", mend=mend) from None
