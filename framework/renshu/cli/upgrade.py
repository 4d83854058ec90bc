"""`renshu upgrade`: a project moves to a newer template, or to other answers, by a merge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from renshu.cli import yaml_file
from renshu.cli.new import add_options, find_template, read_options
from renshu.cli.trained import CommandParser
from renshu.errors import ConfigError

if TYPE_CHECKING:
    from renshu.cli.main import Session

FILE = ".renshu.yaml"


def run(arguments: Sequence[str], session: Session) -> int:
    """Say for each file what happened to it; 1 if a conflict is left to settle."""
    parser = CommandParser("upgrade", __doc__ or "")
    parser.usage = "renshu upgrade [--project FOLDER] [--dry-run] [--restore PATH] [options]"
    parser.epilog = "example: renshu upgrade --docker cuda --dry-run"
    words = "the project's folder; default: this one"
    parser.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help=words)
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, do nothing")
    words = "bring back a file of the template that was deleted; may be given several times"
    parser.add_argument("--restore", action="append", default=[], metavar="PATH", help=words)
    helping = not {"-h", "--help"}.isdisjoint(arguments)
    asked, options = parser.parse_known_args([a for a in arguments if a not in ("-h", "--help")])
    if helping and not (asked.project / FILE).is_file():
        print(parser.format_help())
        return 0
    made_from = stored(asked.project / FILE)
    template = find_template(str(made_from["template"]))
    if helping:
        add_options(parser, template.questions.values(), made_from)
        print(parser.format_help())
        return 0
    changes = template.upgrade(
        asked.project,
        made_from,
        read_options(template.questions.values(), options),
        restore=asked.restore,
        dry_run=asked.dry_run,
    )
    for change in changes:
        print(f"{change.kind:<9}{change.path}{f' ({change.why})' if change.why else ''}")
    return _sum_up([change.kind for change in changes], asked.dry_run)


def stored(file: Path) -> dict[str, object]:
    """What the project was made from; raises ConfigError where it does not say so."""
    if not file.is_file():
        mend = "go to the project's folder, or --project FOLDER"
        raise ConfigError("this is no project that renshu made", where=file, mend=mend)
    found = yaml_file.read_mapping(file)
    if not all(isinstance(found.get(key), str) for key in ("template", "version")):
        allowed = "template: and version:, as `renshu new` writes them"
        raise ConfigError("it does not say what it was made from", where=file, allowed=allowed)
    return found


def _sum_up(kinds: list[str], dry_run: bool) -> int:
    if not kinds:
        print("nothing to do: the project is as the template and its answers have it")
        return 0
    counts = ", ".join(f"{number} {kind}" for kind, number in Counter(kinds).items())
    print(f"\n{counts}{'; nothing was written' if dry_run else ''}")
    if "conflict" in kinds and not dry_run:
        print("settle the conflicts: choose between the lines marked <<<<<<<, |||||||, >>>>>>>")
    return int("conflict" in kinds)
