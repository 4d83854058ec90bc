"""`renshu demo`: every installed task on embedded real data, with its `demo` preset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from renshu.cli.parser import parse_train, task_names
from renshu.errors import ConfigError, RenshuError

if TYPE_CHECKING:
    from renshu.cli.main import Session
    from renshu.cli.training import Result


def run(arguments: Sequence[str], session: Session) -> int:
    """Train each task and print a table; 1 if one failed, the others are shown."""
    parser = argparse.ArgumentParser("renshu demo", description=__doc__, allow_abbrev=False)
    parser.parse_args(arguments)
    names = task_names()
    if not names:
        raise ConfigError("no task is installed", mend='pip install "renshu[all,demo]"')

    from renshu.cli.training import train

    results: dict[str, Result | RenshuError] = {}
    for name in names:
        print(f"{name}: training on embedded real data", flush=True)
        try:
            result = train(parse_train([name, "--preset", "demo"]), session)
        except RenshuError as error:
            results[name] = error
            continue
        if result.interrupted:
            raise KeyboardInterrupt
        results[name] = result
    _print_table(results)
    return int(any(isinstance(result, RenshuError) for result in results.values()))


def _print_table(results: dict[str, Result | RenshuError]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("task", "seconds", "test part", "report")
    for name, result in results.items():
        if isinstance(result, RenshuError):
            table.add_row(name, "", f"failed: {result}", "")
            continue
        figures = "\n".join(f"{key} {value}" for key, value in result.figures.items())
        table.add_row(name, f"{result.seconds:.0f}", figures, str(result.report))
    Console().print(table)
