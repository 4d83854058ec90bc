"""The target is absent or whole, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from renshu.errors import ConfigError
from renshu_templates.place import create

from .helpers import find

FILES = {f"folder-{n % 3}/file-{n}": bytes([n]) * 1000 for n in range(12)}

# A child for each point: it ends, as a kill does, at its n-th request to the file system.
KILLED = """
import os, sys
from pathlib import Path
from renshu_templates.place import create
files = {f"folder-{n % 3}/file-{n}": bytes([n]) * 1000 for n in range(12)}
point, whole, absent = 0, 0, 0
while True:
    point += 1
    target = Path(f"project-{point}")
    child = os.fork()
    if child == 0:
        left = point
        def watch(event, arguments):
            global left
            if event in ("open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.scandir"):
                left -= 1
                if left == 0:
                    os._exit(9)
        sys.addaudithook(watch)
        create(files, target)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if target.exists():
        paths = [path for path in target.rglob("*") if path.is_file()]
        made = {path.relative_to(target).as_posix(): path.read_bytes() for path in paths}
        assert made == files, (point, sorted(made))
        whole += 1
    else:
        absent += 1
    if code == 0:
        break
print(point, whole, absent)
"""


def test_killed_at_any_point_the_target_is_absent_or_whole() -> None:
    # pains/templates.md row 23
    done = subprocess.run(
        [sys.executable, "-c", KILLED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    points, whole, absent = map(int, done.stdout.split())
    assert points > len(FILES)
    assert min(whole, absent) > 0


def test_two_at_once_make_one_project_and_one_message(tmp_path: Path) -> None:
    for attempt in range(20):
        target = tmp_path / f"project-{attempt}"

        def make(number: int, target: Path = target) -> str:
            try:
                create({**FILES, "who": str(number).encode()}, target)
            except ConfigError as error:
                return error.what
            return "made"

        with ThreadPoolExecutor(4) as pool:
            said = sorted(pool.map(make, range(4)))
        assert said == ["made"] + ["something is there already"] * 3
        assert len(list(target.rglob("file-*"))) == len(FILES)
    assert not list(tmp_path.glob(".project*"))


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "project"
    target.mkdir()
    create(FILES, target)  # an empty folder is a fine place
    for occupied in (target, target / "folder-0" / "file-0"):
        with pytest.raises(ConfigError, match="something is there"):
            create({"other": b""}, occupied)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="something is there"):
        create(FILES, link)
    assert len([path for path in target.rglob("*") if path.is_file()]) == len(FILES)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    if os.access(locked, os.W_OK):
        locked = Path("/proc")  # root may write everywhere else
    if not locked.is_dir():
        pytest.skip("no folder that root cannot write")
    with pytest.raises(ConfigError, match="nothing can be written here") as caught:
        create(FILES, locked / "project")
    assert caught.value.where == str(locked)


def test_ctrl_c_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    write = Path.write_bytes

    def interrupted(self: Path, content: bytes) -> int:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(self)
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create(FILES, tmp_path / "project")
    assert not list(tmp_path.iterdir())


def test_braces_in_a_folder_above_are_no_template(tmp_path: Path) -> None:
    """cookiecutter would render them."""
    folder = tmp_path / "{{ cookiecutter.name }} {% x"
    folder.mkdir()
    blank = find("blank")
    assert blank.create(blank.complete({"name": "rivers"}), folder).is_dir()
