"""The one shape of all benchmarks: rows, their JSON, the table in README.md.

`python benchmarks/NAME.py [--quick] [--json FILE]` prints the rows of one benchmark.
`python benchmarks/_table.py run` runs all in full, keeps their JSON in benchmarks/results/ and
rewrites the table in README.md; `run --quick` only prints; `readme` only rewrites the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import operator
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
START, END = "<!-- benchmarks: start -->", "<!-- benchmarks: end -->"
_COMPARE = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}


@dataclass
class Row:
    """One figure beside the figure of a peer from the same run.

    Attributes:
        what: what is measured, in words that stand alone.
        unit: unit of `peer` and `renshu`.
        renshu: our figure; None if it could not be taken.
        peer: the peer's figure, None if there is no peer.
        peer_version: name and version of the peer.
        reach: the goal, such as "<= 20" or ">= 0.996"; "< peer" compares with the peer.
        spread: lowest and highest of the repeats, as text.
        ratio: renshu / peer; filled in here.
        holds: whether the goal is met; filled in here, None where there is no goal.
        commit: commit of an older full run that the row was taken from.
    """

    what: str
    unit: str
    renshu: float | None
    peer: float | None = None
    peer_version: str = ""
    reach: str = ""
    spread: str = ""
    ratio: float | None = None
    holds: bool | None = None
    commit: str = ""

    def __post_init__(self) -> None:
        if self.renshu is None:
            return
        if self.ratio is None and self.peer:
            self.ratio = self.renshu / self.peer
        if self.holds is None and self.reach and not self.commit:
            self.holds = self._reached()

    def _reached(self) -> bool | None:
        sign, _, limit = self.reach.partition(" ")
        goal = self.peer if limit == "peer" else float(limit.replace(",", ""))
        return None if goal is None or self.renshu is None else _COMPARE[sign](self.renshu, goal)


def named(package: str) -> str:
    """`"pytorch-lightning 2.6.6"`, or the bare name where it is not installed."""
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the names and contents of all Python files below `paths`."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(f"{file.relative_to(ROOT)}\n".encode())
            total.update(file.read_bytes())
    return total.hexdigest()


def _code(file: str) -> list[Path]:
    """What a stored row depends on: the benchmark itself and the three packages."""
    return [
        Path(file).resolve(),
        ROOT / "framework" / "renshu",
        ROOT / "tasks" / "renshu_tasks",
        ROOT / "templates" / "renshu_templates",
    ]


def stored(file: str, what: str, unit: str, reach: str = "") -> Row:
    """The row `what` of the last full run, for a row too long for --quick.

    It keeps its verdict only while neither the benchmark nor the packages have changed since.
    """
    path = RESULTS / f"{Path(file).stem}.json"
    missing = Row(what, unit, None, reach=reach)
    if not path.is_file():
        return missing
    last = json.loads(path.read_text(encoding="utf-8"))
    for values in last["rows"]:
        if values["what"] == what:
            changed = last["code"] != digest(_code(file))
            values |= {"commit": last["commit"], "holds": None if changed else values["holds"]}
            return Row(**values)
    return missing


def main(file: str, measure: Callable[[bool], Iterable[Row]]) -> None:
    """The command line of one benchmark; `measure(quick)` gives its rows, printed as they come."""
    parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").strip())
    parser.add_argument("--quick", action="store_true", help="end within 60 s; less exact")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    arguments = parser.parse_args()
    rows = []
    for row in measure(arguments.quick):
        rows.append(row)
        print(line(row), flush=True)
    if arguments.json:
        record = about() | {
            "benchmark": Path(file).stem,
            "quick": arguments.quick,
            "code": digest(_code(file)),
            "rows": [asdict(row) for row in rows],
        }
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        arguments.json.write_text(text, encoding="utf-8")


def about() -> dict[str, Any]:
    """When, with which code, on what machine."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "--short=12", "HEAD"),
        "clean": _git("status", "--porcelain") == "",
        "machine": f"{_processor()}, {os.cpu_count()} cores, {platform.platform(terse=True)}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _git(*arguments: str) -> str:
    answer = subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for text in info.read_text(encoding="utf-8").splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def number(value: float | None) -> str:
    """Three significant digits, whole numbers in full; – for none."""
    if value is None:
        return "–"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}".rstrip("0") if abs(value) < 1 else f"{value:.3g}"


def verdict(row: Row) -> str:
    """How the goal stands: yes, NO, or – where there is none or it is not known."""
    return {True: "yes", False: "NO", None: "–"}[row.holds]


def line(row: Row) -> str:
    """One row as a line of text."""
    peer = f"{row.peer_version}: {number(row.peer)} {row.unit}" if row.peer is not None else ""
    parts = [
        f"{row.what}: {number(row.renshu)} {row.unit}",
        f"[{row.spread}]" if row.spread else "",
        f"({peer})" if peer else "",
        f"reach {row.reach}: {verdict(row)}" if row.reach else "",
        f"from {row.commit}" if row.commit else "",
    ]
    return "  ".join(part for part in parts if part)


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """The table for README.md, one group of rows a benchmark."""
    lines = [
        "| what | peer | renshu | reach | holds |",
        "|---|---:|---:|---:|:---:|",
    ]
    for record in records:
        lines.append(f"| **`python benchmarks/{record['benchmark']}.py`** | | | | |")
        for values in record["rows"]:
            row = Row(**values)
            peer = "–" if row.peer is None else f"{number(row.peer)} ({row.peer_version})"
            ours = f"**{number(row.renshu)}** {row.unit}" + f" ({row.spread})" * bool(row.spread)
            lines.append(f"| {row.what} | {peer} | {ours} | {row.reach or '–'} | {verdict(row)} |")
    where = sorted({f"{record['machine']}, torch {record['torch']}" for record in records})
    commits = sorted({record["commit"] for record in records})
    lines += ["", f"Measured on {'; '.join(where)}; commit {', '.join(commits)}."]
    return "\n".join(lines)


def write_readme() -> None:
    """Put the table of all stored results between README.md's two markers."""
    records = [json.loads(file.read_text("utf-8")) for file in sorted(RESULTS.glob("*.json"))]
    readme = ROOT / "README.md"
    before, start, rest = readme.read_text(encoding="utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise SystemExit(f"{readme} lacks the markers {START} and {END}")
    readme.write_text(f"{before}{START}\n{markdown(records)}\n{END}{after}", encoding="utf-8")


def run_all(quick: bool) -> int:
    """Run every benchmark in its own process; how many failed."""
    failed = 0
    for file in sorted((ROOT / "benchmarks").glob("[!_]*.py")):
        print(f"\n== {file.stem}", flush=True)
        result = ["--quick"] if quick else ["--json", str(RESULTS / f"{file.stem}.json")]
        failed += subprocess.run([sys.executable, str(file), *result], check=False).returncode != 0
    if not quick:
        write_readme()
    return failed


if __name__ == "__main__":
    if "readme" in sys.argv:
        write_readme()
    else:
        sys.exit(run_all("--quick" in sys.argv))
