"""A process killed while saving leaves the checkpoint before, bit for bit, and no stump."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from renshu.checkpoints import listing, newest, read, snapshot, verify, write

SAVER = """
import os, sys, torch
from renshu.checkpoints import snapshot, write
torch.set_num_threads(1)
def state(step):
    return {"model": {"w": torch.full((20_000,), float(step))}, "step": step, "m": [torch.ones(5000) * step]}
def save_for_ever(folder, step, how):
    while True:
        step += 1
        name = "last" if how == "in place" else f"step={step}"
        write(snapshot(state(step), step=step), f"{folder}/{name}")
        os.write(1, b"%d\\n" % step)  # whole or not at all, also where Python does not buffer
for line in sys.stdin:
    folder, step, how = line.rstrip().split("|")
    child = os.fork()
    if child == 0:
        save_for_ever(folder, int(step), how)
    print(child, flush=True)
    os.wait()
    print("dead", flush=True)
"""  # noqa: E501


@pytest.fixture(scope="module")
def savers() -> Iterator[subprocess.Popen[str]]:
    """A process that forks children on demand; each saves one checkpoint after the other."""
    command = [sys.executable, "-W", "ignore", "-c", SAVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield process


def _save_and_be_killed(
    savers: subprocess.Popen[str], folder: Path, step: int, how: str, after: float
) -> int:
    """Let a child save from `step` on, kill it, and return the last step that it announced."""
    assert savers.stdin is not None
    assert savers.stdout is not None
    print(folder, step, how, sep="|", file=savers.stdin, flush=True)
    child, said = int(savers.stdout.readline()), savers.stdout
    if step == 0:  # the first must be whole before anything can be lost
        step = int(said.readline())
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    while (line := said.readline()) != "dead\n":
        step = int(line)
    return step


def _kill_while_saving(savers: subprocess.Popen[str], folder: Path, kills: int, how: str) -> None:
    draw = random.Random(5)
    step = 0
    for _ in range(kills):
        announced = _save_and_be_killed(savers, folder, step, how, draw.uniform(0, 0.1))
        found = newest(folder)
        assert found is not None
        state = read(found)
        step = state["step"]
        assert step >= announced
        assert torch.equal(state["model"]["w"], torch.full((20_000,), float(step)))
        assert torch.equal(state["m"][0], torch.full((5000,), float(step)))
        for path, manifest in listing(folder):
            assert verify(path) == manifest, "a stump is listed"
    assert step > kills // 10, "the children saved next to nothing"


# pains/trainer.md row 17, pains/security.md row 37
@pytest.mark.parametrize("how", ["beside", "in place"])
def test_a_kill_during_a_save_leaves_the_one_before(
    how: str, tmp_path: Path, savers: subprocess.Popen[str]
) -> None:
    _kill_while_saving(savers, tmp_path, 8, how)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["beside", "in place"])
def test_a_hundred_kills_leave_the_one_before(
    how: str, tmp_path: Path, savers: subprocess.Popen[str]
) -> None:
    _kill_while_saving(savers, tmp_path, 50, how)


CALLS_IN_A_SAVE = 36


def test_a_kill_at_every_call_leaves_the_one_before(tmp_path: Path, no_fsync: None) -> None:
    """The process ends inside the n-th call that changes the disk, for every n."""
    code = textwrap.dedent("""
        import os, pathlib, sys, torch
        from renshu.checkpoints import format, snapshot, write
        def end_at(number):
            count = 0
            def wrap(real, writes):
                def call(*args, **options):
                    nonlocal count
                    count += 1
                    if count == number:
                        if writes:  # half of the file is there
                            file = real(*args, **options) and args[0] or args[1]
                            os.truncate(file, os.stat(file).st_size // 2)
                        os._exit(9)
                    return real(*args, **options)
                return call
            for name in ("open", "fsync", "rename", "unlink", "mkdir", "rmdir", "chmod"):
                setattr(os, name, wrap(getattr(os, name), False))
            pathlib.Path.write_bytes = wrap(pathlib.Path.write_bytes, True)
            format.save_file = wrap(format.save_file, True)
        os.fsync = lambda descriptor: None  # a kill, unlike a power cut, loses no pages
        taken = snapshot({"step": 2}, step=2)
        for number in range(1, int(sys.argv[2]) + 1):
            for name in ("step=1", "step=2"):
                if os.fork() == 0:
                    end_at(number)
                    write(taken, f"{sys.argv[1]}/{number} {name}/{name}")
                    os._exit(0)
                print(os.waitstatus_to_exitcode(os.wait()[1]), end=" ")
    """)
    old = snapshot({"step": 1}, step=1)
    folders = [
        tmp_path / f"{number} {name}"
        for number in range(1, CALLS_IN_A_SAVE + 1)
        for name in ("step=1", "step=2")
    ]
    for folder in folders:
        write(old, folder / "step=1")
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path), str(CALLS_IN_A_SAVE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ends = list(map(int, done.stdout.split()))
    assert set(ends) == {9, 0}, "raise CALLS_IN_A_SAVE until a save passes untouched"
    steps = [_left_by_the_dead(folder) for folder in folders]
    assert set(steps) == {1, 2}
    assert all(step == 2 for step, end in zip(steps, ends, strict=True) if end == 0)


def _left_by_the_dead(folder: Path) -> int:
    """The step that the newest checkpoint holds; after one more save nothing else is left."""
    found = newest(folder)
    assert found is not None, f"nothing is left: {list(folder.iterdir())}"
    step = read(found)["step"]
    for path, manifest in listing(folder):
        assert verify(path) == manifest
    write(snapshot({"step": 3}, step=3), folder / "step=3")
    assert newest(folder) == folder / "step=3"
    left = {path.name for path in folder.iterdir()}
    assert {"step=1", "step=3"} <= left <= {"step=1", "step=2", "step=3"}
    return step
