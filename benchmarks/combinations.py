"""Generated projects in which every pair of options occurs: how many, and how many fail.

`python benchmarks/combinations.py [TASK …] [--json FILE]`. The projects are those of
tests/templates/test_projects.py, where what is done with each is said. With tasks named only theirs
are made, and the others' figures are taken from the last run; quick makes none.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import _table

TESTS = "tests/templates/test_projects.py"
TOLD = {"failure": "failing", "error": "failing", "skipped": "skipped"}
NAMES = sorted(point.name for point in entry_points(group="renshu.templates"))
CHOSEN = [name for name in NAMES if name in sys.argv[1:]]


def outcomes(name: str) -> tuple[Counter[str], int]:
    """Combinations of a template by what became of them, and the pairs of options in them."""
    chosen = f"(test_every_combination or hold_every_pair) and {name}"
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", TESTS, "-k", chosen]
        command += ["-m", "nightly or not slow", f"--junitxml={report}"]
        command += ["-o", "junit_logging=system-out"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, cwd=_table.ROOT, env=environment, check=False)
        found, pairs = Counter[str](), 0
        for case in ET.parse(report).iter("testcase"):
            if told := re.search(r"(\d+) pairs of options", case.findtext("system-out", "")):
                pairs = int(told[1])
            else:
                kinds = [TOLD[child.tag] for child in case if child.tag in TOLD]
                found[(kinds or ["passed"])[0]] += 1
    return found, pairs


def measure(quick: bool) -> Iterable[_table.Row]:
    """A row for each template: how many of its combinations do not work."""
    for name in NAMES:
        what = f"{name}: combinations of options that do not work"
        if quick or (CHOSEN and name not in CHOSEN):
            yield _table.stored(__file__, what, "", reach="<= 0")
            continue
        found, pairs = outcomes(name)
        generated, tested = found.total(), found["passed"] + found["failing"]
        spread = f"generated / tested / failing {generated} / {tested} / {found['failing']}"
        failing = found["failing"] + found["skipped"]
        row = _table.Row(what, "", renshu=failing, reach="<= 0")
        row.spread = f"{spread}, {pairs} pairs of options"
        yield row


if __name__ == "__main__":
    sys.argv = [word for word in sys.argv if word not in CHOSEN]
    _table.main(__file__, measure)
