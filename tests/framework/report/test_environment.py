"""environment.json: what a run ran on, without secrets, and what it cannot be continued on."""

from __future__ import annotations

import copy
import json
import os
import platform
import subprocess
from pathlib import Path

import pytest
import torch

from renshu.errors import DataError
from renshu.report import environment


def git(*arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    done = subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_file_holds_what_a_reader_needs(tmp_path: Path):
    path = environment.write_environment(tmp_path, seed=7, fingerprint={"files": 3})
    found = json.loads(path.read_text())
    assert path.name == "environment.json"
    assert (found["seed"], found["fingerprint"]) == (7, {"files": 3})
    assert found["python"] == platform.python_version()
    assert found["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert found["threads"]["torch"] == torch.get_num_threads()
    assert found["cpu"]["cores"] == os.cpu_count()
    assert found == environment.read_environment(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["environment.json"]


def test_writing_again_replaces_the_whole_file(tmp_path: Path):
    environment.write_environment(tmp_path, fingerprint={"ids": ["x" * 1000]})
    environment.write_environment(tmp_path, seed=1)
    assert environment.read_environment(tmp_path)["fingerprint"] is None


def test_reading_says_what_is_broken(tmp_path: Path):
    assert environment.read_environment(tmp_path) == {}
    for text in ("{", "[]", "[" * 100_000):
        (tmp_path / "environment.json").write_text(text)
        with pytest.raises(DataError, match=r"environment\.json"):
            environment.read_environment(tmp_path)


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path):
    assert environment.git_state() is None
    git("init", "-q")
    assert environment.git_state() is None, "no commit yet"
    Path("a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    assert environment.git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    Path("untracked").write_text("1")
    assert environment.git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    Path("a").write_text("2")
    assert environment.git_state() == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def test_a_repositorys_settings_start_no_program(tmp_path: Path):
    git("init", "-q")
    Path("a").write_text("1")
    git("add", "a")
    git("commit", "-qm", "a")
    Path("hook").write_text(f"#!/bin/sh\ntouch {tmp_path}/sentinel\n")
    Path("hook").chmod(0o755)
    git("config", "core.fsmonitor", str(tmp_path / "hook"))
    environment.git_state()
    assert not Path("sentinel").exists()


# pains/security.md row 33: what a command line tells is written without its secrets.
@pytest.mark.parametrize(
    ("words", "masked"),
    [
        (["--api_key", "abc"], ["--api_key", "***"]),
        (["--logger.api-key=abc"], ["--logger.api-key=***"]),
        (["--data.token", "abc", "--x", "1"], ["--data.token", "***", "--x", "1"]),
        (["--password=a=b"], ["--password=***"]),
        (["http://me:abc@host/x"], ["http://***@host/x"]),
        (["--url=https://abc@host"], ["--url=https://***@host"]),
        (["s3://b/k?X-Amz-Signature=abc&v=1"], ["s3://b/k?X-Amz-Signature=***&v=1"]),
        (["https://h/p?access_token=abc"], ["https://h/p?access_token=***"]),
        (["--token"], ["--token"]),
        (["--training.lr", "0.1", "me@host"], ["--training.lr", "0.1", "me@host"]),
    ],
)
def test_secrets_of_the_command_line_are_masked(words: list[str], masked: list[str]):
    assert environment.mask(words) == masked


def test_the_command_can_be_pasted():
    assert environment.command_line(["/x/bin/renshu", "train", "a b"]) == "renshu train 'a b'"
    assert environment.command_line(["/x/renshu/__main__.py", "doctor"]) == "renshu doctor"
    assert environment.command_line(["my run.py", "--a=1"]) == "python 'my run.py' --a=1"


def test_what_keeps_a_resume_from_being_bit_equal_is_named():
    now = environment.describe()
    assert environment.compare(json.loads(json.dumps(now)), now) == []
    assert environment.compare({}, now) == []
    old = copy.deepcopy(now)
    old["packages"]["torch"] = "1.13.1"
    old["threads"]["torch"] = 64
    old["cpu"]["machine"] = "riscv"
    old["time"] = old["python"] = old["command"] = "another"
    found = environment.compare(old, now)
    keys = [line.partition(":")[0] for line in found]
    assert keys == ["packages.torch", "cpu.machine", "threads.torch"]
    assert found[0] == f"packages.torch: 1.13.1 then, {now['packages']['torch']} now"


def test_changed_data_are_refused_with_what_differs():
    ids = ["x", "y", "z"]
    old = {
        "train": {"files": 3, "sha256": "a" * 64, "ids": ids},
        "val": {"files": 1, "sha256": "b" * 64},
        "test": {"files": 1},
    }
    environment.check_fingerprint(old, old | {"train": old["train"] | {"ids": tuple(ids)}})
    changed = {
        "train": {"files": 2, "sha256": "c" * 64, "ids": ids[:2]},
        "val": {"files": 1, "sha256": "d" * 64},
    }
    with pytest.raises(DataError) as raised:
        environment.check_fingerprint(old, changed)
    assert raised.value.where == (
        "test: 1 files then, 0 now; train: 3 files then, 2 now; val: content differs"
    )
    assert "--allow_changed_data" in str(raised.value)
    with pytest.raises(DataError, match="name: content differs"):
        environment.check_fingerprint({"name": "mine"}, {"name": "yours"})
    environment.check_fingerprint(old, changed, allow=True)
    environment.check_fingerprint(None, changed)
    environment.check_fingerprint(old, None)
