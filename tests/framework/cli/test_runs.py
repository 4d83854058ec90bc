"""From training to predictions, with a task that takes a second."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from renshu.checkpoints import newest, read
from renshu.cli import yaml_file
from renshu.cli.main import main
from renshu.cli.table import read_table

pytestmark = pytest.mark.usefixtures("toy")

Program = Callable[..., subprocess.CompletedProcess[str]]

QUIET = ("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false")
TRAIN = ("train", "toy", "--trainer.max_epochs", "3", *QUIET)


def train(*more: str, run: str = "a") -> Path:
    assert main([*TRAIN, "--trainer.run", run, *more]) == 0
    return Path("runs") / run


def weight(run: Path) -> torch.Tensor:
    found = newest(run / "checkpoints")
    assert found is not None
    return read(found)["model"]["layer.weight"]


def test_a_training_leaves_a_whole_run_folder(capsys: pytest.CaptureFixture[str]):
    run = train("--preset", "demo", "--trainer.seed", "3")
    out = capsys.readouterr().out
    for name in ("config.yaml", "environment.json", "metrics.csv", "report.html", "model"):
        assert (run / name).exists(), name
    config = yaml_file.read_mapping(run / "config.yaml")
    assert (config["task"], config["preset"]) == ("toy", "demo")
    assert config["trainer"]["max_epochs"] == 3
    assert config["trainer"]["seed"] == 3
    environment = json.loads((run / "environment.json").read_text())
    assert environment["fingerprint"]["train"]["sha256"] == "embedded"
    assert "slope" in out and "(2.0000 to 4.0000)" in out
    assert f"renshu evaluate {run}" in out
    assert str(run / "report.html") in out


# pains/trainer.md row 38
def test_the_configuration_of_a_run_runs_again_unchanged_to_the_same_weights():
    first = train()
    text = (first / "config.yaml").read_text()
    assert main(["train", "--config", str(first / "config.yaml")]) == 0
    (second,) = [path for path in Path("runs").iterdir() if path != first]
    assert (second / "config.yaml").read_text() == text
    assert torch.equal(weight(first), weight(second))


def test_the_finished_model_holds_what_was_chosen_after_training():
    run = train()
    finished = read(run / "model")["model"]
    assert finished["chosen"] == finished["layer.weight"].squeeze() != 0


def test_evaluate_measures_again_with_the_finished_model(capsys: pytest.CaptureFixture[str]):
    run = train()
    first = (run / "evaluation/test/metrics.json").read_text()
    capsys.readouterr()
    assert main(["evaluate", "a", "--split", "val"]) == 0
    assert "val      slope" in capsys.readouterr().out
    assert (run / "evaluation/val/metrics.json").read_text() == first
    assert main(["evaluate", str(run), "--ckpt_path", "last"]) == 0
    figures = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert figures["chosen"] == 0, "a checkpoint of the training knows no later choice"
    checkpoint = newest(run / "checkpoints")
    assert main(["evaluate", "a", "--ckpt_path", str(checkpoint)]) == 0


def test_wrong_runs_and_checkpoints_are_named(capsys: pytest.CaptureFixture[str]):
    assert main(["evaluate", "b"]) == 2
    assert "there is no run 'b'" in capsys.readouterr().err
    train(run="name")
    assert main(["evaluate", "nane"]) == 2
    assert "did you mean 'name'?" in capsys.readouterr().err
    assert main(["evaluate", "name", "--ckpt_path", "nowhere"]) == 2
    assert "there is no checkpoint" in capsys.readouterr().err
    assert main(["evaluate", "name", "--modle.width", "3"]) == 2
    assert "did you mean '--model.width'?" in capsys.readouterr().err
    assert main(["evaluate", "name", "--splitt", "val"]) == 2
    assert "did you mean '--split'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        (["evaluate"], "RUN"),
        (["predict"], "RUN, FILE, --out"),
        (["predict", "a", "a.txt"], "--out"),
        (["report"], "RUN"),
    ],
)
def test_what_a_command_needs_is_told_like_every_wrong_input(
    command: list[str], needed: str, capsys: pytest.CaptureFixture[str]
):
    assert main(command) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: the following arguments are required: {needed}"
    assert lines[1].startswith(f"  allowed: renshu {command[0]} ") and "RUN" in lines[1]
    assert lines[2] == f"  mend:    renshu {command[0]} --help shows more"


@pytest.mark.parametrize("out", ["p.xlsx", "p.tsv", "p"])
def test_a_table_is_not_written_under_a_name_that_promises_another_format(
    out: str, capsys: pytest.CaptureFixture[str]
):
    Path("a.txt").write_text("x\n")
    assert main(["predict", "a", "a.txt", "--out", out]) == 2
    said = capsys.readouterr().err
    assert f"--out {out}" in said and "mend:    --out p.csv" in said
    assert not Path(out).exists()


# pains/trainer.md row 40
def test_predict_writes_one_safe_row_each_in_order(capsys: pytest.CaptureFixture[str]):
    train()
    Path("a.txt").write_text("=1+1\n-7\nplain\n")
    Path("b.txt").write_text("@x\n")
    assert main(["predict", "a", "b.txt", "a.txt", "--out", "p.csv"]) == 0
    assert "4 rows in p.csv" in capsys.readouterr().out
    with Path("p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["'@x", "'=1+1", "'-7", "plain"]
    assert [row["id"] for row in read_table(Path("p.csv"))] == ["@x", "=1+1", "-7", "plain"]
    assert float(rows[0]["y"]) < float(rows[1]["y"]) < float(rows[3]["y"])


def test_predict_writes_nothing_if_it_cannot_write_all(capsys: pytest.CaptureFixture[str]):
    train()
    Path("a.txt").write_text("x\n")
    Path("bad.txt").write_bytes(b"\xff")
    Path("folder.csv").mkdir()
    before = sorted(Path.cwd().iterdir())
    assert main(["predict", "a", "a.txt", "none.txt", "--out", "p.csv"]) == 2
    assert "none.txt" in capsys.readouterr().err
    for out in ("none/p.csv", "folder.csv"):
        assert main(["predict", "a", "a.txt", "--out", out]) == 2
        assert "cannot be written there" in capsys.readouterr().err
    assert main(["predict", "a", "a.txt", "bad.txt", "--out", "p.csv"]) == 1
    assert sorted(path for path in Path.cwd().iterdir() if "error" not in path.name) == before


def test_changed_data_are_refused_unless_allowed(capsys: pytest.CaptureFixture[str]):
    train()
    changed = ("--data.path", "other")
    assert main(["evaluate", "a", *changed]) == 2
    assert "train: content differs" in capsys.readouterr().err
    assert main(["evaluate", "a", *changed, "--allow_changed_data"]) == 0
    again = [*TRAIN, "--trainer.run", "a", "--ckpt_path", "last", *changed]
    assert main(again) == 2
    assert "--allow_changed_data" in capsys.readouterr().err


def test_the_demo_trains_each_task_and_shows_where_the_reports_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("renshu.cli.demo.task_names", lambda: ["toy"])
    assert main(["demo"]) == 0
    row = capsys.readouterr().out.splitlines()[-1]
    (report,) = Path("runs").glob("*/report.html")
    assert row.startswith("toy ") and row.endswith(str(report))
    assert "slope" in row
    monkeypatch.setenv("TOY_NAN", "1")
    assert main(["demo"]) == 1
    assert "failed" in capsys.readouterr().out.splitlines()[-1]


def test_a_run_that_exists_is_not_overwritten(capsys: pytest.CaptureFixture[str]):
    run = train()
    before = weight(run)
    assert main([*TRAIN, "--trainer.run", "a"]) == 2
    assert "exists" in capsys.readouterr().err
    assert torch.equal(weight(run), before)


def test_the_printed_command_continues_a_stopped_run_to_the_same_end(
    renshu: Program, monkeypatch: pytest.MonkeyPatch
):
    whole = train("--trainer.seed", "5", run="whole")
    monkeypatch.setenv("TOY_SIGNAL", "SIGINT")
    done = renshu(*TRAIN, "--trainer.seed", "5", "--trainer.run", "cut")
    assert done.returncode == 130, done.stderr
    command = done.stderr.partition("continue with: ")[2].strip().split()
    assert command[0] == "renshu"
    assert not Path("runs/cut/model").exists()
    monkeypatch.delenv("TOY_SIGNAL")
    assert main(command[1:]) == 0
    assert torch.equal(weight(Path("runs/cut")), weight(whole))
    assert Path("runs/cut/model").exists()


def test_sigterm_ends_with_143_and_the_state_saved(
    renshu: Program, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOY_SIGNAL", "SIGTERM")
    done = renshu(*TRAIN, "--trainer.run", "a")
    assert done.returncode == 143, done.stderr
    assert newest(Path("runs/a/checkpoints")) is not None
    assert "continue with: renshu train --config runs/a/config.yaml" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_job_that_always_says_last_starts_fresh_and_then_goes_on(
    capsys: pytest.CaptureFixture[str],
):
    command = [*TRAIN, "--trainer.run", "a", "--ckpt_path", "last"]
    assert main(command) == 0
    assert capsys.readouterr().err.count("starts from the beginning") == 1
    seed = json.loads(Path("runs/a/environment.json").read_text())["seed"]
    assert main([*command, "--trainer.max_epochs", "4"]) == 0
    assert json.loads(Path("runs/a/environment.json").read_text())["seed"] == seed
    config = yaml_file.read_mapping(Path("runs/a/config.yaml"))
    assert (config["trainer"]["seed"], config["trainer"]["max_epochs"]) == (seed, 4)
    assert len(read(newest(Path("runs/a/checkpoints")) or "")["callbacks"]) > 0


def test_what_keeps_a_continued_run_from_being_bit_equal_is_said(
    capsys: pytest.CaptureFixture[str],
):
    run = train()
    stored = json.loads((run / "environment.json").read_text())
    stored["packages"]["torch"] = "2.0"
    (run / "environment.json").write_text(json.dumps(stored))
    assert main([*TRAIN, "--trainer.run", "a", "--ckpt_path", "last"]) == 0
    assert capsys.readouterr().err.count("packages.torch: 2.0 then") == 1


def test_a_checkpoint_with_one_byte_altered_is_refused_with_its_file(
    capsys: pytest.CaptureFixture[str],
):
    run = train()
    file = max((run / "model").iterdir(), key=lambda path: path.suffix == ".safetensors")
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    Path("a.txt").write_text("x")
    for command in (["evaluate", "a"], ["predict", "a", "a.txt", "--out", "p.csv"]):
        assert main(command) == 2
        assert file.name in capsys.readouterr().err
    assert not Path("p.csv").exists()


def test_a_resume_with_another_architecture_lists_what_differs(
    capsys: pytest.CaptureFixture[str],
):
    config = train() / "config.yaml"
    before = config.read_bytes()
    again = [*TRAIN, "--trainer.run", "a", "--ckpt_path", "last", "--model.width", "9"]
    assert main(again) == 2
    assert "extra: [8] in the checkpoint, [9] in the module" in capsys.readouterr().err
    assert config.read_bytes() == before, "what is refused changes nothing"


def test_a_bug_is_one_line_and_a_traceback_in_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TOY_BUG", "1")
    assert main([*TRAIN, "--trainer.run", "a"]) == 1
    said = capsys.readouterr().err
    assert "error: ZeroDivisionError: a bug of the user" in said
    assert "Traceback" not in said
    (file,) = Path("runs/a").glob("renshu-error-*.txt")
    assert str(file) in said
    assert "training_step" in file.read_text()
    monkeypatch.setenv("RENSHU_DEBUG", "1")
    assert main([*TRAIN, "--trainer.run", "a"]) == 1
    assert "training_step" in capsys.readouterr().err


def test_a_nan_loss_is_a_failed_run(capsys: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("TOY_NAN", "1")
    assert main([*TRAIN]) == 1
    said = capsys.readouterr().err
    for part in ("became nan at optimiser step 0", "checkpoint", "learning rate"):
        assert part in said, said


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        (
            "devices",
            "2",
            ("--trainer.devices 2 cannot be had", "allowed: 1", "--trainer.devices auto"),
        ),
        ("precision", "fp8", ("there is no precision 'fp8'", "bf16-mixed")),
        ("validate_every", "3 stepps", ("'3 stepps' is not an interval", "100 steps")),
    ],
)
def test_a_trainer_that_cannot_work_is_refused_before_data_are_read(
    option: str, value: str, said: tuple[str, ...], capfd: pytest.CaptureFixture[str]
):
    assert main([*TRAIN, f"--trainer.{option}", value]) == 2
    out, err = capfd.readouterr()
    for part in said:
        assert part in err
    assert "reading the numbers" not in out + err
    assert main(TRAIN) == 0
    assert "reading the numbers" in capfd.readouterr().out


def test_a_missing_package_names_the_line_that_installs_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "renshu_toy_task_parts", None)
    assert main(TRAIN) == 2
    assert 'pip install "renshu[vision]"' in capsys.readouterr().err


def test_a_run_without_a_folder_says_so(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "toy", "--trainer.fast_dev_run", "true", *QUIET]) == 0
    assert "nothing was written" in capsys.readouterr().out
    assert not Path("runs").exists()


def test_a_place_that_cannot_be_written_is_wrong_input(capsys: pytest.CaptureFixture[str]):
    assert main([*TRAIN, "--trainer.default_root_dir", "/proc/self"]) == 2
    assert "/proc/self" in capsys.readouterr().err


def test_a_second_process_on_one_run_is_refused(toy: Path, capsys: pytest.CaptureFixture[str]):
    code = "from pathlib import Path; from renshu.runs import open_run\n"
    code += "held = open_run(Path('runs').absolute(), 'a', resume=False); print('held', flush=True)"
    command = [sys.executable, "-c", f"{code}; input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        assert main([*TRAIN, "--trainer.run", "a"]) == 2
        assert f"process {other.pid}" in capsys.readouterr().err
        other.communicate(b"\n")
    assert main([*TRAIN, "--trainer.run", "a"]) == 0
