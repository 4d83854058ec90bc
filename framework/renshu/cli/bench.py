"""`renshu bench TASK`: many independent jobs, and a table that can be computed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from renshu.cli.parser import task_names
from renshu.errors import ConfigError
from renshu.task import find_task

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Hand the arguments behind the task's name to its benchmark; the exit code is its answer."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: renshu bench TASK ...", f"tasks: {', '.join(_able())}", sep="\n")
        return 0
    task = find_task(arguments[0])
    if not task.bench:
        raise ConfigError(f"{task.name} has no benchmark", allowed=", ".join(_able()) or "none")
    session.resume = " ".join(["renshu", "bench", *arguments])
    return task.load("bench")(arguments[1:], lambda line: print(line, flush=True))


def _able() -> list[str]:
    return [name for name in task_names() if find_task(name).bench]
