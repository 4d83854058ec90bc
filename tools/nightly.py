"""The long tests, and their outcome as JSON: `python tools/nightly.py [-k EXPRESSION]`.

Writes benchmarks/results/nightly/tests.json: date, commit, and every test marked `nightly` with its
outcome and seconds. Further arguments go to pytest; a part of the tests is run without writing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "results" / "nightly" / "tests.json"


def outcomes(report: Path) -> list[dict[str, Any]]:
    """Test, outcome and seconds of each case in a JUnit report (which pytest has just written)."""
    found = []
    for case in ET.parse(report).iter("testcase"):
        kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}::{case.get('name')}"
        seconds = round(float(case.get("time", 0)), 1)
        found.append({"test": name, "outcome": (kinds or ["passed"])[0], "seconds": seconds})
    return found


def main() -> int:
    """Run the tests; pytest's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-m", "nightly", f"--junitxml={report}"]
        code = subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, check=False).returncode
        tests = outcomes(report)
    if len(sys.argv) == 1:
        git = ["git", "rev-parse", "HEAD"]
        commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit.strip(),
            "passed": sum(test["outcome"] == "passed" for test in tests),
            "failed": sum(test["outcome"] in ("failure", "error") for test in tests),
            "tests": tests,
        }
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
