"""Whatever happens while saving, the checkpoint before it still loads, bit for bit."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from renshu.checkpoints import format as format_module
from renshu.checkpoints import listing, newest, publish, read, snapshot, verify, write
from renshu.errors import CheckpointError

from .conftest import make_state
from .helpers import same

CALLS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("open", "fsync", "rename", "unlink", "mkdir", "rmdir", "chmod")),
    (Path, "open"),
    (Path, "write_bytes"),
    (format_module, "save_file"),
)


class Faults:
    """Counts the calls that change a disk, and lets some of them fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.count = 0
        self.failing: Callable[[int], bool] = lambda count: False
        self.failed: list[str] = []
        self.number = number
        for owner, name in CALLS:
            monkeypatch.setattr(owner, name, self._wrap(name, getattr(owner, name)))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.failing(self.count):
                self.failed.append(name)
                # Half of it is there before the disk is full.
                if name == "write_bytes":
                    real(args[0], args[1][: len(args[1]) // 2])
                if name == "save_file":
                    real(*args, **options)
                    os.truncate(args[1], args[1].stat().st_size // 2)
                    raise SafetensorError(f"I/O error: {os.strerror(self.number)}")
                raise OSError(self.number, os.strerror(self.number))
            return real(*args, **options)

        return call


@pytest.fixture
def quick(no_fsync: None) -> None:
    """`os.fsync` that returns at once; `Faults` wraps it."""


# pains/security.md row 37, and "How the best test durability" 3 and 7
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("for_ever", [False, True], ids=["once", "for ever"])
@pytest.mark.parametrize("replaces", [False, True], ids=["beside", "in place"])
def test_a_fault_at_any_call_loses_nothing(
    number: int,
    for_ever: bool,
    replaces: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: None,
) -> None:
    """Fail at call 1, 2, 3 … until a save passes untouched; each time old or new is whole."""
    old, new = (snapshot(make_state(n), step=n) for n in (1, 2))
    target = tmp_path / ("step=1" if replaces else "step=2")
    write(old, tmp_path / "step=1")
    faults = Faults(monkeypatch, number)
    survived = 0
    for at in range(1, 200):
        faults.count, faults.failed = 0, []
        faults.failing = (lambda n, at=at: n >= at) if for_ever else (lambda n, at=at: n == at)
        try:
            write(new, target)
            error = None
        except CheckpointError as e:
            error = e
        faults.failing = lambda n: False
        if not faults.failed:
            break
        survived += error is None
        found = newest(tmp_path)
        assert found is not None
        step = verify(found).step
        assert same(read(found)["progress"], make_state(step)["progress"])
        if error is None:
            assert step == 2
        else:
            assert os.strerror(number) in str(error)
            assert "free" in str(error)
        _start_again(tmp_path, old, target)
    assert at > 15, "the faults reached nothing"
    assert newest(tmp_path) == target
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"step=1", target.name})
    # One failed fsync of a file is made good by writing the file anew under another name.
    assert survived >= (0 if for_ever else 4)


def _start_again(folder: Path, old: Any, target: Path) -> None:
    """After a fault the next save must work as if nothing had been, whatever was left lying."""
    found = newest(folder)
    assert found is not None
    if verify(found).step != 1:
        shutil.rmtree(found)
    write(old, folder / "step=1")
    assert [path.name for path, _ in listing(folder)] == ["step=1"]
    assert sorted(path.name for path in folder.iterdir()) == ["step=1"]


def _name(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the names of open files")
def test_a_file_whose_fsync_failed_is_written_anew_never_synced_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the next one on the same file may lie (PostgreSQL, 2018)."""
    synced: list[tuple[str, int]] = []
    fail = iter([True, False, True])

    def fsync(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            synced.append((_name(descriptor).name, os.fstat(descriptor).st_ino))
        if next(fail, False):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    path = write(snapshot(make_state(1)), tmp_path / "c")
    verify(path)
    assert len({name.removesuffix(" (deleted)") for name, _ in synced}) == 4
    assert len(synced) == len(set(synced)) == 6, "two of four written anew"


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the names of open files")
def test_everything_is_durable_before_the_name_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files synced before the manifest, the folder before its rename, the parent after it."""
    events: list[str] = []
    fsync, rename = os.fsync, os.rename

    def spy_fsync(descriptor: int) -> None:
        events.append("sync " + _name(descriptor).name)
        fsync(descriptor)

    def spy_rename(one: Any, other: Any) -> None:
        events.append("name " + Path(other).name)
        rename(one, other)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "rename", spy_rename)
    write(snapshot(make_state(1)), tmp_path / "c", lambda: events.append("before publish"))
    draft = next(event for event in events if event.endswith(".tmp"))
    files = ["model.safetensors", "state.safetensors", "state.json"]
    expected = [f"sync {name}" for name in files] + ["before publish", "sync manifest.json"]
    assert events == [*expected, draft, "name c", f"sync {tmp_path.name}"]


def test_an_error_before_publishing_leaves_nothing(tmp_path: Path, quick: None) -> None:
    def fail() -> None:
        assert not (tmp_path / "c").exists()
        raise RuntimeError("the logger is gone")

    with pytest.raises(RuntimeError, match="the logger is gone"):
        write(snapshot(make_state(1)), tmp_path / "c", fail)
    assert list(tmp_path.iterdir()) == []


def test_free_space_is_held_against_the_size_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1_000_000))
    with pytest.raises(CheckpointError, match=r"needs 8,000,\d\d\d bytes, 1,000,000 are free"):
        write(snapshot({"x": torch.zeros(2_000_000)}), tmp_path / "a" / "c")
    with pytest.raises(CheckpointError, match="not enough free space"):
        publish.check_space(tmp_path / "no" / "such" / "run", 8_000_000)
    monkeypatch.undo()
    publish.check_space(tmp_path / "no" / "such" / "run", 1000)
    assert not any(tmp_path.rglob("*.safetensors"))


# pains/security.md row 37
def test_a_file_size_limit_is_named_and_leaves_no_stump(tmp_path: Path) -> None:
    """RLIMIT_FSIZE ends a write in the middle: EFBIG after a stump."""
    code = textwrap.dedent("""
        import resource, signal, sys, torch
        from renshu.checkpoints import snapshot, write
        from renshu.errors import CheckpointError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        write(snapshot({"x": torch.ones(10)}, step=1), sys.argv[1] + "/step=1")
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write(snapshot({"x": torch.ones(1000)}, step=2), sys.argv[1] + "/step=2")
        except CheckpointError as error:
            print(error)
            sys.exit(3)
    """)
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert "File too large" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step=1"]
    assert torch.equal(read(tmp_path / "step=1")["x"], torch.ones(10))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if done.returncode:
        pytest.skip(f"a small tmpfs cannot be mounted: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(snapshot({"x": torch.ones(1000)}, step=1), small_disk / "step=1")
    monkeypatch.setattr(publish, "check_space", lambda path, size: None)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write(snapshot({"x": torch.ones(1_000_000)}, step=2), small_disk / "step=2")
    assert [path.name for path in small_disk.iterdir()] == ["step=1"]
    assert newest(small_disk) == small_disk / "step=1"


def test_a_living_process_is_left_alone(tmp_path: Path, quick: None) -> None:
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        names = {
            "living": f".step=1.{publish._HOST}.{other.pid}.0.tmp",
            "elsewhere": f".step=1.another-host.{2**22 + 1}.0.tmp",
            "dead": f".step=1.{publish._HOST}.{2**22 + 1}.0.tmp",
            "not ours": ".hidden",
        }
        for name in names.values():
            (tmp_path / name).mkdir()
        write(snapshot({}), tmp_path / "step=2")
    finally:
        other.kill()
        other.wait()
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"step=2", names["living"], names["elsewhere"], names["not ours"]}
    assert [path.name for path, _ in listing(tmp_path)] == ["step=2"]


def test_a_copy_set_aside_by_a_dead_process_is_found_and_put_back(
    tmp_path: Path, quick: None
) -> None:
    target = write(snapshot({"x": 1}, step=1), tmp_path / "step=1")
    aside = tmp_path / f".step=1.{publish._HOST}.{2**22 + 1}.0.old"
    target.rename(aside)
    assert newest(tmp_path) == aside
    assert read(aside) == {"x": 1}
    write(snapshot({}, step=2), tmp_path / "step=2")
    assert [path.name for path, _ in listing(tmp_path)] == ["step=1", "step=2"]
    assert not aside.exists()


# pains/security.md row 39
def test_a_reader_beside_a_writer_sees_old_or_new_never_half(tmp_path: Path, quick: None) -> None:
    target, stop = tmp_path / "last", threading.Event()
    write(snapshot(make_state(1), step=1), target)

    def replace() -> None:
        for step in range(2, 60):
            write(snapshot(make_state(step), step=step), target)
        stop.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen: set[int] = set()
    while not stop.is_set():
        try:
            state = read(target)
        except CheckpointError:
            continue  # between the two renames, or files of two checkpoints: refused, not mixed
        assert state["model"]["embed.weight"].unique().tolist() == [state["progress"]["step"]]
        seen.add(state["progress"]["step"])
    writer.join()
    assert seen
