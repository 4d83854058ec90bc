"""What pages hold that is made from the code: options, commands, examples and their diffs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from difflib import unified_diff
from pathlib import Path
from typing import Any

from renshu.attributes import KNOWN
from renshu.cli.main import COMMANDS
from renshu.cli.options import attribute_help
from renshu.options import TrainerOptions
from renshu.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent
_PART = re.compile(r"<!-- (options|commands|diff|entry|file|known) ?(.*?) ?-->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for every page: fills its `<!-- options -->` and the like."""
    return _PART.sub(lambda found: _PARTS[found[1]](*found[2].split()), markdown)


def options() -> str:
    """Name, type, default and meaning of every option of the Trainer."""
    meanings = attribute_help(TrainerOptions)
    rows = ["| option | type | default | meaning |", "|---|---|---|---|"]
    for option in fields(TrainerOptions):
        kind = str(option.type).replace("|", r"\|")
        cells = f"`{option.name}`", kind, f"`{option.default!r}`", meanings[option.name]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def commands() -> str:
    """Every command of the command line and what it does."""
    rows = ["| command | |", "|---|---|"]
    return "\n".join(rows + [f"| `renshu {name}` | {what} |" for name, what in COMMANDS.items()])


def diff(before: str, after: str) -> str:
    """How one stage of a conversion becomes the next."""
    folder = ROOT / "examples" / "conversion"
    old, new = ((folder / name).read_text("utf-8").splitlines() for name in (before, after))
    lines = [line for line in unified_diff(old, new, n=2, lineterm="") if line[:3] not in _HEADS]
    return "\n".join([f"`{before}` → `{after}`", "", "```diff", *lines, "```"])


def entry(name: str) -> str:
    """A method that the Trainer makes at run time, with its signature and docstring."""
    method = getattr(Trainer, name)
    arguments = [str(a).replace("'", "") for a in inspect.signature(method).parameters.values()][1:]
    text = ",\n    ".join(arguments)
    head = f"### `{name}` {{: #renshu.trainer.Trainer.{name}}}"
    returns = str(inspect.signature(method).return_annotation)
    signature = f"```py\n{name}(\n    {text},\n) -> {returns}\n```"
    return "\n\n".join([head, signature, inspect.getdoc(method) or ""])


def file(name: str) -> str:
    """A Python file of the repository in full."""
    return f"```py\n{(ROOT / name).read_text('utf-8')}```"


def known() -> str:
    """What a Trainer knows beside its properties and options."""
    return ", ".join(f"`{name}`" for name in sorted(KNOWN))


_HEADS = ("---", "+++")
_PARTS: dict[str, Callable[..., str]] = {
    "options": options,
    "commands": commands,
    "diff": diff,
    "entry": entry,
    "file": file,
    "known": known,
}
