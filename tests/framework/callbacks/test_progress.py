"""The progress line: one line in place where it can be, few plain lines where it cannot."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import tiny
from renshu.callbacks import ProgressBar
from renshu.callbacks.progress import _display

SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import tiny

class Slow(tiny.Tiny):
    def training_step(self, batch, batch_idx):
        time.sleep(0.03)
        if batch_idx == 1 and self.current_epoch == 1:
            print("from the user")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        time.sleep(0.03)
        super().validation_step(batch, batch_idx)

trainer = tiny.trainer(sys.argv[1], max_epochs=4, enable_progress_bar=True, logger=False)
trainer.fit(Slow(), tiny.loader(64), tiny.loader(64))
"""


def script() -> str:
    return SCRIPT.format(tests=str(Path(tiny.__file__).parent))


def in_a_terminal(folder: Path) -> str:
    """What the script writes to a terminal of 120 columns."""
    main, side = pty.openpty()
    variables = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    child = subprocess.Popen(
        [sys.executable, "-c", script(), str(folder)],
        stdin=side, stdout=side, stderr=side, env=variables,
    )  # fmt: skip
    os.close(side)
    found = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:
            break
        if not part:
            break
        found += part
    os.close(main)
    assert child.wait() == 0, found.decode()
    return found.decode()


def on_screen(text: str) -> list[str]:
    """The lines that stay: a carriage return or an erased line starts its line again."""
    lines = [""]
    for token in re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]|\r|\n|[^\x1b\r\n]+", text):
        if token == "\n":
            lines.append("")
        elif token.endswith("A") and token.startswith("\x1b"):
            lines.pop()
        elif token == "\r" or token.endswith("K"):
            lines[-1] = ""
        elif not token.startswith("\x1b"):
            lines[-1] += token
    return [line.rstrip() for line in lines if line.strip()]


def test_a_terminal_shows_one_line_in_place(tmp_path: Path) -> None:  # pains/trainer.md row 42
    raw = in_a_terminal(tmp_path).replace("\r\n", "\n")
    assert "\r" in raw
    assert "validation  ━" in raw
    shown = [line for line in on_screen(raw) if "epoch" in line or "validation" in line]
    assert len(shown) == 1
    number = r"[\d.,e-]+"
    start = rf"epoch 4/4  ━{{16}}  8/8  0:00:00 left  {number} samples/s  "
    assert re.match(rf"{start}val_loss {number}  train_loss {number}$", shown[0]), shown[0]
    assert on_screen(raw).count("from the user") == 1


@pytest.mark.parametrize(
    ("terminal", "term", "live"),
    [(True, "xterm", True), (True, "dumb", False), (False, "xterm", False)],
)
def test_only_a_capable_terminal_gets_a_live_line(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, term: str, live: bool
) -> None:
    stdout = io.StringIO()
    stdout.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdout", stdout)
    monkeypatch.setenv("TERM", term)
    display = _display(leave=True)
    display.close()
    assert display.live is live


def test_piped_output_is_few_plain_lines(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script(), str(tmp_path)], capture_output=True, check=True
    )
    assert b"\r" not in done.stdout + done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    lines = [line for line in done.stdout.decode().splitlines() if line != "from the user"]
    assert len(lines) <= 4
    pairs = dict(pair.split("=") for pair in lines[-1].split())
    assert (pairs["epoch"], pairs["step"]) == ("3", "32")
    assert {"train_loss", "val_loss", "samples/s"} <= pairs.keys()
    assert all(float(value) == float(value) for value in pairs.values())


class Clock:
    """A clock that tests move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("renshu.callbacks.progress.time.monotonic", lambda: self.now)


def test_plain_lines_are_seconds_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)

    class Timed(tiny.Tiny):
        def on_train_epoch_end(self) -> None:
            clock.now += 3.0

    tiny.trainer(tmp_path, ProgressBar(), max_epochs=12).fit(Timed(), tiny.loader(), tiny.loader())
    epochs = re.findall(r"^epoch=(\d+) ", capsys.readouterr().out, re.M)
    assert epochs == ["3", "7", "11", "11"]


class FakeDisplay:
    live, seconds = True, 0.25

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.closed = 0

    def show(self, text: str) -> None:
        self.texts.append(text)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> FakeDisplay:
    display = FakeDisplay()
    monkeypatch.setattr("renshu.callbacks.progress._display", lambda leave: display)
    return display


def test_between_two_refreshes_nothing_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: FakeDisplay
) -> None:
    clock = Clock(monkeypatch)
    reads = 0

    def counted(values: Any) -> list[float]:
        nonlocal reads
        reads += 1
        return [float(value) for value in values]

    class Timed(tiny.Tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            clock.now += 1 / 32
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("renshu.callbacks.progress.to_host", counted)
    trainer = tiny.trainer(tmp_path, ProgressBar(), max_epochs=1)
    trainer.fit(Timed(), tiny.loader(800))
    assert trainer.global_step == 100
    # 100 steps are 3.125 s: a refresh every 0.25 s and the last one; the epoch's end is no other
    assert reads == len(shown.texts) == 13
    assert shown.closed == 1


def test_speed_and_time_left_leave_validation_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: FakeDisplay
) -> None:
    clock = Clock(monkeypatch)

    class Timed(tiny.Tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            clock.now += 1.0
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            clock.now += 100.0 * (not self.trainer.sanity_checking)

    trainer = tiny.trainer(tmp_path, ProgressBar(), max_epochs=3)
    trainer.fit(Timed(), tiny.loader(), tiny.loader())
    training = [text for text in shown.texts if text.startswith("epoch")]
    assert all("  8 samples/s  " in text for text in training)
    left = [re.findall(r"0:00:(\d\d) left", text)[0] for text in training]
    assert left[:4] == ["11", "10", "09", "08"]
    validation = [text for text in shown.texts if text.startswith("validation")]
    assert [text.split()[-1] for text in validation] == ["1/4", "2/4", "3/4"] * 3


def test_an_unknown_length_falls_back_to_max_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shown: FakeDisplay
) -> None:
    clock = Clock(monkeypatch)

    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            clock.now += 1.0
            return iter([(torch.zeros(4), torch.zeros(1))] * 100)

    class Timed(tiny.Tiny):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            clock.now += 1.0

    loader = torch.utils.data.DataLoader(Stream(), batch_size=4)
    tiny.trainer(tmp_path, ProgressBar(), max_steps=6).fit(Timed(), loader)
    assert [text.split("  ")[2] for text in shown.texts][:6] == [f"{n}/6" for n in range(1, 7)]


def test_a_failed_fit_gives_the_terminal_back(tmp_path: Path, shown: FakeDisplay) -> None:
    class Fails(tiny.Tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        tiny.trainer(tmp_path, ProgressBar()).fit(Fails(), tiny.loader())
    assert shown.closed == 1


def test_a_refresh_rate_of_0_shows_nothing(tmp_path: Path, shown: FakeDisplay) -> None:
    bar = ProgressBar(refresh_rate=0)
    trainer, module = tiny.trainer(tmp_path, bar, max_epochs=2), tiny.Tiny()
    trainer.fit(module, tiny.loader(), tiny.loader())
    trainer.test(module, tiny.loader(), verbose=False)
    assert shown.texts == []


def test_a_notebook_gets_one_output_updated_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # pains/trainer.md row 42
    outputs: list[list[str]] = []

    def display(content: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        texts = [content["text/plain"]]
        outputs.append(texts)
        return SimpleNamespace(update=lambda content, raw: texts.append(content["text/plain"]))

    shell = SimpleNamespace(kernel=object())
    package = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))

    class Slow(tiny.Tiny):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            time.sleep(0.1)

    tiny.trainer(tmp_path, ProgressBar(), max_epochs=3).fit(Slow(), tiny.loader(), tiny.loader())
    assert len(outputs) == 1
    assert any(text.startswith("validation") for text in outputs[0])
    assert outputs[0][-1].startswith("epoch 3/3")


def test_the_loss_is_shown_though_nobody_logs_it(tmp_path: Path, shown: FakeDisplay) -> None:
    class Silent(tiny.Tiny):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.loss(batch)

    tiny.trainer(tmp_path, ProgressBar(), max_epochs=1).fit(Silent(), tiny.loader())
    assert re.search(r"samples/s  loss [\d.]+$", shown.texts[-1])


def test_odd_names_stay_one_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Odd(tiny.Tiny):
        def on_train_epoch_end(self) -> None:
            self.log("a b=c\n\r", 1.0, prog_bar=True)

    tiny.trainer(tmp_path, ProgressBar(), max_epochs=1).fit(Odd(), tiny.loader())
    assert " a_b_c__=1 " in capsys.readouterr().out
