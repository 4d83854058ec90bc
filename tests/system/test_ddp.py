"""Two processes train as one does: weights, values, samples, files; and end together."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

PROGRAM = Path(__file__).with_name("ddp_program.py")
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

pytestmark = pytest.mark.slow


def start(out: str, *, launcher: bool = False, **options: Any) -> subprocess.Popen[str]:
    return start_all({out: options}, launcher)


def start_all(trainings: dict[str, dict[str, Any]], launcher: bool = False) -> Any:
    """One program for several trainings, one after another: starting it takes longer than they."""
    command = [sys.executable, *(TORCHRUN if launcher else []), str(PROGRAM)]
    for out, options in trainings.items():
        alone = launcher or options.get("alone")
        several = {} if alone else {"devices": 2, "strategy": "ddp"}
        chosen = {"max_epochs": 2, "run": out} | several | options
        chosen.pop("alone", None)
        command += [out, json.dumps(chosen)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def run(out: str, *, launcher: bool = False, **options: Any) -> dict[str, Any]:
    return run_all({out: options}, launcher)[0]


def run_all(trainings: dict[str, dict[str, Any]], launcher: bool = False) -> list[dict[str, Any]]:
    process = start_all(trainings, launcher)
    said, errors = process.communicate(timeout=170)
    assert process.returncode == 0, errors
    speaks = len(re.findall(r"\d,\d+ parameters", said))
    assert speaks == len(trainings), "process 0 alone speaks"
    assert errors.count("stopp") == 0
    return [json.loads(Path(f"{out}.json").read_text("utf-8")) for out in trainings]


def largest_difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    pairs = zip(one["weights"].values(), other["weights"].values(), strict=True)
    return max(float((torch.tensor(a) - torch.tensor(b)).abs().max()) for a, b in pairs)


def same_training(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert largest_difference(one, two) < 1e-5
    assert one["samples"] == two["samples"]
    for name, value in one["values"].items():
        # What a step logs is the first process's own; an epoch's values are those of all.
        if "loss_step" not in name and name != "train_loss":
            assert two["values"][name] == pytest.approx(value, abs=1e-5), name
    assert two["values"]["val_count"] == 299
    assert two["tested"] == [pytest.approx(one["tested"][0], abs=1e-5)]
    assert two["tested"][0]["val_count"] == 13
    assert two["predicted"] == one["predicted"]
    assert [len(batch) for batch in two["predicted"]] == [4, 4, 4, 4, 4, 3]


# capabilities G2 (the seam); pains/trainer.md rows 4 and 8
def test_two_processes_end_as_one_with_the_double_batch() -> None:
    kinds = {
        "plain": {},
        "augmented": {"what": ["noisy"]},
        "counted": {"what": ["counted"], "accumulate_grad_batches": 3},
        "clipped": {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5},
        "manual": {"what": ["manual"], "limit_train_batches": 15},
    }
    alone = {f"one-{name}": {"alone": True, "batch": 32} | kind for name, kind in kinds.items()}
    parted = {f"two-{name}": {"batch": 16} | kind for name, kind in kinds.items()}
    # Each process logs another loss; the program compares the weights that its plateau leads to.
    plateau = {"plateau": {"batch": 16, "what": ["plateau"]}}
    for one, two in zip(run_all(alone), run_all(parted | plateau)[:-1], strict=True):
        same_training(one, two)


def test_torchrun_takes_the_same_way() -> None:
    same_training(run("one", alone=True, batch=32), run("two", launcher=True, batch=16))


def test_one_set_of_files() -> None:
    run("two", batch=16)
    folder = Path("runs/two")
    assert sorted(path.name for path in Path("runs").iterdir()) == ["two"]
    assert sorted(p.name for p in folder.iterdir() if p.name != ".lock") == [
        "checkpoints", "environment.json", "metrics.csv",
    ]  # fmt: skip
    rows = list(csv.DictReader((folder / "metrics.csv").read_text("utf-8").splitlines()))
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps))
    assert int(rows[-1]["samples"]) == 2 * 501
    # A thread of the group that outlives Python ends the process with an abort, now and then.
    for rank in range(2):
        assert "gloo" not in Path(f"two.threads.{rank}").read_text("utf-8")


# a run saved on two processes, continued on one, with the same order of samples
def test_what_two_processes_saved_one_continues() -> None:
    whole = run("whole", alone=True, batch=32)
    run("parted", batch=16, max_epochs=-1, max_steps=20)
    ended = run("parted", alone=True, batch=32, ckpt_path="last")
    assert largest_difference(whole, ended) < 1e-5
    assert whole["samples"] == ended["samples"]


def test_saved_inside_a_window_two_processes_go_on_exactly() -> None:
    whole = run("whole", batch=16, accumulate_grad_batches=4)
    process = start("parted", batch=16, what=["SIGTERM"], accumulate_grad_batches=4)
    process.communicate(timeout=90)
    assert process.returncode == 143
    ended = run("parted", batch=16, accumulate_grad_batches=4, ckpt_path="last")
    assert largest_difference(whole, ended) < 1e-6
    for name, value in whole["values"].items():
        assert ended["values"][name] == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize("launcher", [False, True])
def test_an_error_in_one_process_ends_all(launcher: bool) -> None:
    process = start("bad", batch=16, what=["fails"], launcher=launcher)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "ValueError: the second process fails" in errors
    assert nobody_left()


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 0)])
def test_a_signal_to_one_process_stops_and_saves_all(name: str, code: int) -> None:
    process = start("stopped", batch=16, what=[name], max_epochs=500)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == code, errors
    assert errors.count("the state is saved in") == 1
    assert len(list(Path("runs/stopped/checkpoints").glob("interrupted-*"))) == 1
    assert nobody_left()


def test_ctrl_c_stops_and_saves() -> None:
    process = start("stopped", batch=16, max_epochs=5000)
    deadline = time.monotonic() + 60
    while not list(Path("runs/stopped/checkpoints").glob("step=*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 130, errors
    assert errors.count("the state is saved in") == 1
    assert nobody_left()


# pains/trainer.md row 2: a rank that does other things than its peers is named
def test_a_process_that_goes_its_own_way_is_named() -> None:
    process = start("bad", batch=16, what=["strays"])
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "process 1 is at the look for NaN, process 0 at an epoch's values" in errors
    assert nobody_left()


# pains/trainer.md row 33
def test_parameters_that_a_step_does_not_use_are_named_at_the_first_one() -> None:
    process = start("bad", batch=16, what=["unused"])
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 1
    assert "training_step did not use idle.weight, idle.bias" in errors
    assert "ddp_find_unused_parameters_true" in errors
    find = {"strategy": "ddp_find_unused_parameters_true"}
    common = {"batch": 16, "max_epochs": 1}
    run_all({
        "frozen": common | {"what": ["unused", "frozen"]},
        "found": common | {"what": ["unused"]} | find,
    })  # fmt: skip


def test_the_command_line_trains_in_two_processes_and_speaks_once() -> None:
    command = ["train", "image_classification", "--trainer.devices", "2"]
    command += ["--trainer.strategy", "ddp", "--trainer.max_epochs", "1", "--trainer.run", "two"]
    done = subprocess.run(
        [sys.executable, "-m", "renshu", *command], capture_output=True, text=True, timeout=170
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("report ") == 1 and done.stderr.count("pictures 8×8") == 1
    assert Path("runs/two/report.html").is_file() and Path("runs/two/model").is_dir()


def nobody_left() -> bool:
    """Whether no process of the program is there 10 seconds later."""
    for _ in range(100):
        found = []
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
                here = (entry.parent / "cwd").resolve() == Path.cwd()
            except OSError:
                continue
            if here and str(PROGRAM).encode() in words:
                found.append(entry)
        if not found:
            return True
        time.sleep(0.1)
    return False
