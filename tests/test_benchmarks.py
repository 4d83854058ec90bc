"""The benchmarks' shape, and those of their figures that are counted, not timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a benchmark by name."""
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    yield import_module
    for name in ("_table", "overhead", "startup"):
        sys.modules.pop(name, None)


def test_a_row_holds_when_its_goal_is_reached(bench: Any) -> None:
    table = bench("_table")
    assert table.Row("a", "µs", 20.0, reach="<= 20").holds is True
    assert table.Row("a", "µs", 20.1, reach="<= 20").holds is False
    assert table.Row("a", "", 0.995, reach=">= 0.996").holds is False
    assert table.Row("a", "s", 1.0, peer=2.0, reach="< peer").holds is True
    assert table.Row("a", "s", 1.0, peer=2.0).ratio == 0.5
    assert table.Row("a", "s", 1.0).holds is None
    assert table.Row("a", "s", None, reach="<= 1").holds is None


def test_an_older_figure_keeps_no_verdict_once_its_code_has_changed(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = bench("_table")
    if not (table.ROOT / "framework").is_dir():
        pytest.skip("a built wheel's tests stand without the sources that a figure is tied to")
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    file = str(table.ROOT / "benchmarks" / "startup.py")
    assert table.stored(file, "slow", "s", "<= 2").holds is None  # never run

    row = {"what": "slow", "unit": "s", "renshu": 1.0, "reach": "<= 2", "holds": True}
    record = {"commit": "abc", "code": table.digest(table._code(file)), "rows": [row]}
    (tmp_path / "startup.json").write_text(json.dumps(record))
    same = table.stored(file, "slow", "s")
    assert (same.renshu, same.holds, same.commit) == (1.0, True, "abc")

    record["code"] = "of another time"
    (tmp_path / "startup.json").write_text(json.dumps(record))
    changed = table.stored(file, "slow", "s")
    assert (changed.renshu, changed.holds, changed.commit) == (1.0, None, "abc")


def test_the_readmes_table_is_written_between_its_markers(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = bench("_table")
    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "RESULTS", results)
    row = table.Row("a step", "µs", 12.34, peer=400.0, peer_version="peer 1.0", reach="<= 20")
    record = {
        "benchmark": "overhead",
        "machine": "a CPU",
        "torch": "2.14",
        "commit": "abc",
        "rows": [vars(row)],
    }
    (results / "overhead.json").write_text(json.dumps(record))
    (tmp_path / "README.md").write_text(f"before\n{table.START}\nstale words\n{table.END}\nafter\n")
    table.write_readme()
    text = (tmp_path / "README.md").read_text()
    assert "| a step | 400 (peer 1.0) | **12.3** µs | <= 20 | yes |" in text
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text


@pytest.mark.parametrize("name", ["overhead", "startup", "loading", "checkpoint"])
def test_every_benchmark_explains_itself(bench: Any, root: Path, name: str) -> None:
    assert callable(bench(name).measure)
    assert bench(name).__doc__


def test_at_most_25_python_calls_a_step_above_the_hand_written_loop(bench: Any) -> None:
    # pains/trainer.md row 9
    overhead = bench("overhead")
    assert overhead.calls_above_hand(overhead.RENSHU) <= 25


def test_training_step_is_at_most_5_frames_in_3_files_below_fit(bench: Any) -> None:
    """With all defaults, a user's callback, accumulation and bf16-mixed."""
    overhead = bench("overhead")
    files = overhead.trace(overhead.RENSHU)
    assert len(files) <= 5, files
    assert len(set(files)) <= 3, files


@pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers, loggers and tips
def test_the_trace_is_counted_the_same_for_lightning(bench: Any) -> None:
    """The measure finds what is known of Lightning 2: its closures, plugins and call helpers."""
    pytest.importorskip("pytorch_lightning")
    overhead = bench("overhead")
    files = [Path(file).name for file in overhead.trace(overhead.LIGHTNING)]
    assert len(files) >= 15
    assert {"trainer.py", "fit_loop.py", "automatic.py", "call.py"} <= set(files)
