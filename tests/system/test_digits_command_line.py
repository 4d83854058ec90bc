"""The whole way on the embedded digits, each command in a process of its own."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SHORT = ("--trainer.max_epochs", "3", "--trainer.seed", "1")


def renshu(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "renshu", *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def accuracy(run: Path, split: str) -> float:
    return json.loads((run / "evaluation" / split / "metrics.json").read_text())["accuracy"][
        "value"
    ]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs, and what the command printed."""
    folder = tmp_path_factory.mktemp("digits")
    done = subprocess.run(
        [sys.executable, "-m", "renshu", "train", "image_classification", *SHORT]
        + ["--trainer.run", "a", "--training.ema_decay", "0"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    (folder / "printed").write_text(done.stdout)
    (folder / "said").write_text(done.stderr)
    return folder


def test_one_command_trains_a_real_classifier(digits: Path):
    run = digits / "runs/a"
    # One of ten classes by chance; three epochs are enough to be far from that.
    assert accuracy(run, "test") > 0.7
    for name in ("config.yaml", "metrics.csv", "environment.json", "report.html", "model_card.md"):
        assert (run / name).stat().st_size > 0
    printed = (digits / "printed").read_text()
    assert f"accuracy {accuracy(run, 'test'):.4f}" in printed
    assert "renshu evaluate runs/a" in printed


# pains/trainer.md row 42: piped output is plain lines.
def test_piped_output_is_plain_and_short(digits: Path):
    text = (digits / "printed").read_text() + (digits / "said").read_text()
    assert "\r" not in text and "\x1b" not in text
    assert len(text.splitlines()) < 60


def test_evaluate_finds_the_same_figures(digits: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(digits)
    before = accuracy(Path("runs/a"), "test")
    renshu("evaluate", "runs/a")
    assert accuracy(Path("runs/a"), "test") == before
    assert "accuracy" in renshu("evaluate", "a", "--split", "val").stdout


def test_predict_names_the_digit_on_a_picture(digits: Path, monkeypatch: pytest.MonkeyPatch):
    from PIL import Image
    from sklearn.datasets import load_digits

    monkeypatch.chdir(digits)
    found = load_digits()
    for number in range(20):
        pixels = (found.images[number] * 255 / 16).round().astype("uint8")
        Image.fromarray(pixels).save(f"{number}.png")
    renshu("predict", "a", *(f"{number}.png" for number in range(20)), "--out", "p.csv")
    with Path("p.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [f"{number}.png" for number in range(20)]
    right = sum(row["predicted"] == str(found.target[n]) for n, row in enumerate(rows))
    assert right >= 14


def test_a_picture_that_cannot_be_read_is_named(digits: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(digits)
    Path("cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    said = renshu("predict", "a", "cut.png", "--out", "cut.csv", code=2).stderr
    assert "cut.png" in said
    assert not Path("cut.csv").exists()


def test_report_writes_the_page_again(digits: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(digits)
    page = Path("runs/a/report.html")
    page.unlink()
    assert renshu("report", "a").stdout.strip().endswith("report.html")
    assert page.exists()


def test_ctrl_c_saves_and_the_printed_command_goes_on_to_the_same_weights(digits: Path):
    command = [sys.executable, "-m", "renshu", "train", "image_classification", *SHORT]
    command += ["--training.ema_decay", "0", "--trainer.run", "cut"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    log = Path("runs/cut/checkpoints")
    limit = time.monotonic() + 300
    while not any(log.glob("step=*/manifest.json")):  # after the first epoch
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    go_on = re.search(r"continue with: renshu (.*)", said)
    assert go_on is not None
    renshu(*go_on.group(1).split())
    assert weights(Path("runs/cut")) == weights(digits / "runs/a")


def weights(run: Path) -> dict[str, bytes]:
    from renshu.checkpoints import newest, read_weights

    found = newest(run / "checkpoints")
    assert found is not None
    return {name: tensor.numpy().tobytes() for name, tensor in read_weights(found).items()}


def test_wrong_data_are_wrong_input():
    said = renshu("train", "image_classification", "--data.path", "nowhere", code=2).stderr
    assert "nowhere" in said
    Path("one/cat").mkdir(parents=True)
    assert renshu("train", "image_classification", "--data.path", "one", code=2).stderr
    assert not Path("runs").exists()


# CI runs the command itself; here its clock is looked at.
@pytest.mark.nightly
def test_demo_trains_every_task_within_a_minute_each():
    done = renshu("demo")
    rows = re.findall(r"^(\w+) +(\d+) s .*report\.html$", done.stdout, re.MULTILINE)
    assert {name for name, _ in rows} == {"anomaly", "image_classification", "segmentation", "text"}
    assert len(list(Path("runs").glob("*/report.html"))) == 4
    assert max(int(seconds) for _, seconds in rows) <= 60
