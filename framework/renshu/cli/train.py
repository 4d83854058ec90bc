"""usage: renshu train TASK [--config FILE] [--preset NAME] [options]

Train a task's model. Without --data.path it trains on embedded real data. Tasks:

  {tasks}

  --config FILE        YAML file with any of the options; a run's config.yaml runs again unchanged
  --preset NAME        named set of values
  --ckpt_path WHERE    continue from last, best or a path (last needs --trainer.run NAME)
  --print_config       print all values as YAML and stop

A flag wins over the file, the file over the preset, the preset over the defaults.
renshu train TASK --help shows all options of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from renshu.cli.parser import parse_train, task_names

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Train as the arguments say; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").format(tasks="\n  ".join(task_names()) or "none is installed"))
        return 0
    request = parse_train(arguments)
    if request.print_config:
        from renshu.cli import yaml_file

        print(yaml_file.dumps(request.config), end="")
        return 0
    from renshu.cli.training import train

    print(*train(request, session).lines(), sep="\n")
    return 0
