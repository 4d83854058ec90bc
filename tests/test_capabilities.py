"""Every capability that is promised has a test that shows it, marked `# capabilities B3`."""

from __future__ import annotations

import re
from pathlib import Path

ROWS = (
    *("A1", "A2", "A3", "A4", "A5"),  # structure: research and engineering apart, install, notebook
    *("B1", "B2", "B3", "B4", "B5", "B6", "B7"),  # Module: steps, log, optimisers, hooks, devices
    *("C1", "C2", "C3", "C4", "C5", "C6"),  # Trainer: entries, options, searches, profilers, ends
    *("D1", "D2", "D3"),  # data: loaders, several at once, iterables
    *("E", "F"),  # callbacks, loggers
    *("G2", "G4"),  # the seam of distribution: several processes, what launchers say
)


def test_every_capability_has_a_test() -> None:
    shown = set[str]()
    for file in Path(__file__).parent.rglob("test_*.py"):
        for line in re.findall(r"# capabilities ([A-H0-9, ]+)", file.read_text(encoding="utf-8")):
            shown |= set(re.findall(r"[A-H]\d?", line))
    assert sorted(set(ROWS) - shown) == []
