"""Runs: their names, their locks, and which checkpoint `ckpt_path` means."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from killing import Net, Noisy, SaveThenKill, fit, in_child, same
from renshu.callbacks import ModelCheckpoint
from renshu.errors import CheckpointError, ConfigError
from renshu.report.environment import FILE
from renshu.runs import RunFolder, find_checkpoint, open_run, runs_root

FORK = multiprocessing.get_context("fork")


# pains/trainer.md row 41
def test_processes_that_start_together_get_folders_of_their_own(run_dir: Path) -> None:
    def run(barrier: Any, sender: Any) -> None:
        barrier.wait(60)
        folder = open_run(run_dir / "runs", None, resume=False)
        sender.send(str(folder.path))
        time.sleep(0.2)

    barrier, channels = FORK.Barrier(12), [FORK.Pipe(duplex=False) for _ in range(12)]
    processes = [FORK.Process(target=run, args=(barrier, sender)) for _, sender in channels]
    for process in processes:
        process.start()
    paths = [receiver.recv() for receiver, _ in channels]
    for process in processes:
        process.join(60)
    assert len(set(paths)) == 12
    assert sorted(p.name.rsplit("-", 1)[1] for p in run_dir.glob("runs/*")) == sorted(
        str(number) for number in range(1, 13)
    )


def _holding(path: Path) -> Any:
    """A process that holds the lock of a run until it is killed."""

    def hold(sender: Any) -> None:
        folder = open_run(path.parent, path.name, resume=True)
        sender.send(folder.path.name)
        time.sleep(120)

    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=hold, args=(sender,))
    process.start()
    receiver.recv()
    return process


# pains/trainer.md row 41
def test_a_second_live_process_is_refused_and_the_lock_of_a_killed_one_is_free(
    run_dir: Path,
) -> None:
    process = _holding(run_dir / "runs" / "mine")
    with pytest.raises(ConfigError, match=rf"another process trains .*process {process.pid}"):
        open_run(run_dir / "runs", "mine", resume=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    open_run(run_dir / "runs", "mine", resume=True).unlock()


# pains/trainer.md row 41: workers live on for seconds after their parent was killed
def test_orphaned_workers_do_not_hold_the_lock() -> None:
    def loader() -> Any:
        return DataLoader(Noisy(), 4, num_workers=2)

    in_child(lambda: fit(loader, callbacks=lambda: [SaveThenKill(3)]), killed=True)
    _assert_free()


def _assert_free() -> None:
    # In a process of its own: the lock is one between processes.
    in_child(lambda: RunFolder(Path("runs/r")).lock())


def test_a_run_is_free_again_after_its_fit() -> None:
    fit(max_epochs=1)
    _assert_free()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "/abs", "a\n", "x" * 101, "a\0"])
def test_a_name_that_is_no_plain_folder_name_is_refused(name: str, run_dir: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        open_run(run_dir / "runs", name, resume=False)
    with pytest.raises(ConfigError, match="cannot be the name of a run"):
        find_checkpoint("last", run_dir / "runs", name)
    assert not (run_dir / "runs").exists()


def test_last_without_a_name_is_refused_with_the_runs_there_are() -> None:
    fit(max_epochs=1, run="first")
    fit(max_epochs=1, run="second")
    with pytest.raises(ConfigError, match="first, second"):
        fit(run=None, resume="last")


def test_last_of_a_new_run_starts_fresh_and_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    weights = in_child(lambda: fit(max_epochs=1, run="new", resume="last"))
    assert "run 'new' has no checkpoint yet: it starts from the beginning" in capfd.readouterr().err
    assert same(weights, in_child(lambda: fit(max_epochs=1, run="other")))


def test_a_draft_that_a_kill_left_behind_is_no_checkpoint() -> None:
    draft = Path("runs/new/checkpoints/.step=000003.host.1.0.tmp")
    draft.mkdir(parents=True)
    (draft / "manifest.json").write_text("{}")
    fit(max_epochs=1, run="new", resume="last")


def _saved() -> None:
    fit(max_epochs=2, callbacks=lambda: [ModelCheckpoint(save_top_k=-1)])


def test_a_run_with_checkpoints_is_not_begun_anew() -> None:
    _saved()
    with pytest.raises(ConfigError, match="exists and has checkpoints"):
        fit(max_epochs=1)
    _assert_free()


@pytest.mark.parametrize("root", ["/proc/renshu", "file/below", "file"])
def test_a_place_that_cannot_be_written_is_refused(root: str) -> None:
    Path("file").write_text("a file where a folder should be")
    with pytest.raises(ConfigError, match="cannot be written"):
        fit(max_epochs=1, default_root_dir=root)
    with pytest.raises(ConfigError, match="cannot be written"):
        fit(max_epochs=1, default_root_dir=root, run=None)


def test_a_lock_that_cannot_be_written_is_refused(run_dir: Path) -> None:
    (run_dir / "runs" / "r" / ".lock").mkdir(parents=True)
    with pytest.raises(ConfigError, match="cannot be written"):
        open_run(run_dir / "runs", "r", resume=False)


def _damage(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


# pains/trainer.md rows 17, 45
def test_one_altered_byte_is_refused_with_the_files_name() -> None:
    _saved()
    checkpoint = Path("runs/r/checkpoints/step=000012")
    _damage(checkpoint)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not as it was written"):
        fit(max_epochs=3, resume=checkpoint)
    _assert_free()


# pains/trainer.md rows 17, 45
def test_last_falls_back_to_an_older_good_checkpoint_and_names_the_damaged_one(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    _saved()
    _damage(Path("runs/r/checkpoints/step=000012"))
    fit(max_epochs=3, resume="last")
    assert "step=000012 is damaged and passed over" in caplog.text
    assert "checkpoints/step=000006" in capfd.readouterr().err


# pains/trainer.md row 45
def test_a_run_whose_checkpoints_are_all_damaged_does_not_start_anew() -> None:
    _saved()
    for checkpoint in Path("runs/r/checkpoints").iterdir():
        _damage(checkpoint)
    with pytest.raises(CheckpointError, match="step=000006, step=000012"):
        fit(max_epochs=3, resume="last")


@pytest.mark.parametrize("word", ["runs/r", "runs/r/checkpoints/step=000006"])
def test_a_path_or_a_runs_folder_continues_in_that_run(word: str) -> None:
    _saved()
    fit(max_epochs=3, run=None, resume=word)
    assert [path.name for path in runs_root(None).iterdir()] == ["r"]
    assert (Path("runs/r/checkpoints")).is_dir()


def test_what_is_no_checkpoint_is_refused_with_what_is_near() -> None:
    _saved()
    with pytest.raises(CheckpointError, match="step=000006"):
        fit(resume="runs/r/checkpoints/step=000007", run=None)
    with pytest.raises(ConfigError, match="no best checkpoint"):
        fit(resume="best")


# pains/trainer.md row 1
@pytest.mark.parametrize(
    ("keys", "then", "line"),
    [
        (("packages", "torch"), "1.0.0", "torch: 1.0.0 then"),
        (("threads", "torch"), 99, "99 then, 1 now"),
    ],
)
def test_what_keeps_a_resume_from_being_exact_is_said(
    keys: tuple[str, str], then: Any, line: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _saved()
    assert "bit-equal" not in capfd.readouterr().err
    path = Path("runs/r") / FILE
    stored = json.loads(path.read_text())
    stored[keys[0]][keys[1]] = then
    path.write_text(json.dumps(stored))
    fit(max_epochs=3, resume="last")
    said = [text for text in capfd.readouterr().err.splitlines() if "bit-equal" in text]
    assert len(said) == 1 and line in said[0]


def test_the_same_machine_is_continued_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    _saved()
    fit(max_epochs=3, resume="last", module=Net)
    assert "bit-equal" not in capfd.readouterr().err
