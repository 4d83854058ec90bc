"""`renshu demo`: every installed task on embedded real data, with its `demo` preset."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from renshu.cli.parser import parse_train, task_names
from renshu.errors import RenshuError

if TYPE_CHECKING:
    from renshu.cli.main import Session


def run(arguments: Sequence[str], session: Session) -> int:
    """Train each task and print a table; 1 if one failed, the others are shown."""
    parser = argparse.ArgumentParser("renshu demo", description=__doc__, allow_abbrev=False)
    parser.parse_args(arguments)
    from renshu.cli.training import train

    rows, failed = [], not task_names()
    for name in task_names():
        print(f"{name}: training on embedded real data", flush=True)
        start = time.perf_counter()
        try:
            result = train(parse_train([name, "--preset", "demo"]), session)
        except RenshuError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
            rows.append((name, "failed", "", ""))
            continue
        figures = ", ".join(" ".join(item) for item in list(result.figures.items())[:2])
        rows.append((name, f"{time.perf_counter() - start:.0f} s", figures, result.report))
    print()
    for name, seconds, figures, report in [("task", "time", "test part", "report"), *rows]:
        print(f"{name:<22}{seconds:<8}{figures:<66}{report}")
    return int(failed)
