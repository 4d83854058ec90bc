"""Entry point of `renshu`: finds the command, runs it, turns what went wrong into an exit code.

Imports nothing heavy, so that help and mistyped commands answer at once. Exit codes: 0 done,
1 the run failed, 2 wrong input, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from renshu import messages
from renshu.errors import ConfigError, RenshuError, near
from renshu.options import TrainerOptions

COMMANDS = {
    "new": "make a project of your own from a template",
    "upgrade": "move such a project to a newer template, or to other answers",
    "check-data": "say what a task's data are like, before any training",
    "train": "train a task's model; on embedded real data when no data is given",
    "evaluate": "measure a trained run on its test or validation part",
    "predict": "predict files with a trained run and write a CSV table",
    "export": "write a trained model as onnx and the like; kept only if it does the same",
    "bench": "run a task's benchmark, or compute its table again from stored scores",
    "report": "write a run's report.html again",
    "import-lightning": "write Lightning's .ckpt file as a checkpoint of renshu",
    "doctor": "check versions, devices and permissions; names the command that mends a fault",
    "completion": "print a script that lets bash, zsh or fish complete commands and options",
    "demo": "train every installed task on embedded real data, within a minute each",
}
"""Every command and what it does; the module of the same name has `run(arguments, session)`."""


@dataclass
class Session:
    """What a command leaves behind for the error report.

    Attributes:
        run_dir: folder of the run at work; None before there is one.
        resume: the command that continues an interrupted run.
    """

    run_dir: Path | None = None
    resume: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code; never raises and never shows a bare traceback."""
    session, messages.spelling = Session(), as_flags
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments), session)
    except KeyboardInterrupt:
        return _stopped("Ctrl-C", 130, session)
    except SystemExit as end:  # --help and the like, or the Trainer after SIGTERM
        if end.code == 143:
            return _stopped("SIGTERM", 143, session)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BrokenPipeError:
        # The reader of a pipe went away (`renshu train --help | head`): nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        return _failed(error, session)
    finally:
        messages.spelling = str


def _dispatch(arguments: list[str], session: Session) -> int:
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help", "help"):
        rows = [f"  {command:<18}{summary}" for command, summary in COMMANDS.items()]
        more = "renshu COMMAND --help shows more. RENSHU_DEBUG=1 shows the traceback of an error."
        print("usage: renshu COMMAND ...", "", *rows, "", more, sep="\n")
        return 0
    if name == "--version":
        print(f"renshu {import_module('renshu').__version__}")
        return 0
    if name not in COMMANDS:
        raise ConfigError(
            f"there is no command {name!r}", allowed=", ".join(COMMANDS), mend=near(name, COMMANDS)
        )
    return import_module(f"renshu.cli.{name.replace('-', '_')}").run(arguments[1:], session)


_FLAGS = {"ckpt_path": "--ckpt_path"} | {
    n: f"--trainer.{n}" for n in TrainerOptions.__annotations__
}
_QUOTES = "\"'"
_ARGUMENT = re.compile(
    r"""\bTrainer\((\w+)=([^),]*)\)|(?<![\w./-])(\w+)=("[^"]*"|'[^']*'|[^\s,;:)]+)"""
)


def as_flags(text: str) -> str:
    """A message with the Trainer's arguments as flags: `Trainer(run="a")` → `--trainer.run a`."""

    def flag(found: re.Match[str]) -> str:
        name, value = (found[1], found[2]) if found[1] else (found[3], found[4])
        return f"{_FLAGS[name]} {value.strip(_QUOTES)}" if name in _FLAGS else found[0]

    return _ARGUMENT.sub(flag, text)


def _stopped(by: str, code: int, session: Session) -> int:
    print(f"stopped by {by}", file=sys.stderr)
    if session.resume:
        print(f"continue with: {session.resume}", file=sys.stderr)
    return code


def _failed(error: Exception, session: Session) -> int:
    """A RenshuError's own words; for any other fault one line and where the traceback is."""
    import traceback

    if os.environ.get("RENSHU_DEBUG") == "1":
        traceback.print_exception(error)
    if isinstance(error, RenshuError):
        print(f"error: {as_flags(str(error))}", file=sys.stderr)
        return error.exit_code
    import tempfile

    text = str(error).strip().split("\n")[0]
    print(f"error: {type(error).__name__}: {text}", file=sys.stderr)
    folder = session.run_dir if session.run_dir and os.access(session.run_dir, os.W_OK) else None
    handle, name = tempfile.mkstemp(".txt", "renshu-error-", folder, text=True)
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
        traceback.print_exception(error, file=file)
    print(f"  traceback: {name}", file=sys.stderr)
    return 1
