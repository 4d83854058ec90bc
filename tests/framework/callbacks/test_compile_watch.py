"""CompileWatch: torch.compile that goes on compiling is said once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import small_models
from renshu.callbacks import CompileWatch


class Counting(nn.Module):
    """Python looks at a number that changes with each call: each call is a new program."""

    def __init__(self, restless: bool) -> None:
        super().__init__()
        self.layer, self.calls, self.restless = nn.Linear(64, 10), 0, restless

    def forward(self, images: Tensor) -> Tensor:
        out = self.layer(images)
        return out * (1 + 1 / (self.calls + 1)) if self.restless else out


class Compiled(small_models.Classifier):
    def __init__(self, restless: bool) -> None:
        super().__init__()
        self.net = Counting(restless)  # type: ignore[assignment]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.net.calls = batch_idx  # type: ignore[assignment]
        return super().training_step(batch, batch_idx)


@pytest.fixture(autouse=True)
def _no_code_generation(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tracing is torch's own, the minutes of the C++ compiler are left out."""
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda part: compile_(part, backend="eager"))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(specialize_float=True, automatic_dynamic_shapes=False):
        yield
    torch._dynamo.reset()


# capabilities: torch.compile, with a message when it recompiles repeatedly
def test_a_program_that_changes_with_each_batch_is_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = small_models.trainer(compile=True)
    run.fit(Compiled(restless=True), small_models.loader(48))
    said = capsys.readouterr().err
    assert said.count("torch.compile compiled again in batch 2 of epoch 0") == 1
    assert said.count("torch.compile") == 1


def test_one_that_comes_to_rest_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    run = small_models.trainer(compile=True)
    run.fit(Compiled(restless=False), small_models.loader(48))
    assert "torch.compile" not in capsys.readouterr().err
    assert any(isinstance(callback, CompileWatch) for callback in run.callbacks)


def test_nobody_watches_what_is_not_compiled() -> None:
    run = small_models.trainer()
    assert not any(isinstance(callback, CompileWatch) for callback in run.callbacks)
