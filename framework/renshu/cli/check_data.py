"""`renshu check-data TASK [--config FILE] [options]`: what the data are like, before training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from renshu.cli.parser import parse_train, task_names
from renshu.errors import ConfigError
from renshu.task import find_task

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Examine the data that the options name and print what was found; 2 if they are refused."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__, "The options are those of `renshu train TASK`.", sep="\n")
        return 0
    request = parse_train(arguments)
    if not request.task.check:
        able = ", ".join(name for name in task_names() if find_task(name).check)
        said = f"{request.task.name} has no check of its own"
        raise ConfigError(said, allowed=able or "none", mend="renshu train checks its data as well")
    print(*request.task.load("check")(request.options), sep="\n")
    return 0
