"""Background saving: one in flight, nothing swallowed."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch

from renshu.checkpoints import Saver, read, snapshot, verify
from renshu.errors import CheckpointError


def test_no_thread_before_the_first_save() -> None:
    before = threading.active_count()
    saver = Saver()
    saver.wait()
    saver.close()
    assert threading.active_count() == before


def test_training_goes_on_while_it_writes(tmp_path: Path, no_fsync: None) -> None:
    go, saver, weight = threading.Event(), Saver(), torch.zeros(3)
    saver.submit(snapshot({"w": weight}), tmp_path / "c", go.wait)
    weight += 1
    assert not (tmp_path / "c").exists()
    go.set()
    saver.wait()
    assert not read(tmp_path / "c")["w"].any()


def test_one_save_is_in_flight(tmp_path: Path, no_fsync: None) -> None:
    order: list[str] = []
    saver = Saver()

    def slow() -> None:
        time.sleep(0.05)
        order.append("first")

    saver.submit(snapshot({}), tmp_path / "a", slow)
    saver.submit(snapshot({}), tmp_path / "b", lambda: order.append("second"))
    assert (tmp_path / "a" / "manifest.json").exists()
    saver.close()
    assert order == ["first", "second"]


@pytest.mark.parametrize("surface", ["wait", "close", "submit"])
def test_an_error_surfaces_once_and_the_next_save_works(
    surface: str, tmp_path: Path, no_fsync: None
) -> None:
    (tmp_path / "file").touch()
    saver = Saver()
    saver.submit(snapshot({}), tmp_path / "file" / "c")
    with pytest.raises(CheckpointError, match="cannot be written"):
        if surface == "submit":
            saver.submit(snapshot({}), tmp_path / "d")
        else:
            getattr(saver, surface)()
    saver.wait()
    assert not (tmp_path / "d").exists()
    saver.submit(snapshot({}), tmp_path / "d")
    saver.wait()
    verify(tmp_path / "d")


def test_a_program_that_ends_finishes_its_save(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import sys, time, torch
        from renshu.checkpoints import Saver, snapshot
        Saver().submit(snapshot({"x": 1}), sys.argv[1], lambda: time.sleep(0.3))
    """)
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert read(tmp_path / "c") == {"x": 1}
