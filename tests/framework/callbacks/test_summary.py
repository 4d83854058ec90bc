"""The table of a module's parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tiny
from renshu.callbacks import ModelSummary
from renshu.callbacks.summary import summarize


def test_the_table_counts_parameters() -> None:
    module = tiny.Tiny()
    module.net[0].requires_grad_(False)
    module.net[1].eval()
    assert summarize(module, 2).splitlines() == [
        "name   type         parameters  mode",
        "net    Sequential           49  train",
        "net.0  Linear               30  train",
        "net.1  BatchNorm1d          12  eval",
        "net.2  Linear                7  train",
        "49 parameters, 19 of them trained, 0.000 MB",
    ]


@pytest.mark.parametrize(("depth", "lines"), [(0, 1), (1, 3), (2, 6), (-1, 6)])
def test_the_depth(depth: int, lines: int) -> None:
    assert len(summarize(tiny.Tiny(), depth).splitlines()) == lines


def test_shared_and_lazy_parameters() -> None:
    shared = nn.Linear(3, 3)
    module = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared), "c": nn.LazyLinear(2)})
    text = summarize(module, 1)
    assert text.splitlines()[-1].startswith("12 parameters")
    assert "0 lazy" in text
    half = nn.Linear(1000, 1000, bias=False, dtype=torch.bfloat16)
    assert summarize(half).endswith("2.000 MB")


def test_it_is_printed_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.trainer(tmp_path, ModelSummary(max_depth=0), max_epochs=1).fit(tiny.Tiny(), tiny.loader())
    assert "49 parameters, 49 of them trained" in capsys.readouterr().out


# capabilities C4 E
@pytest.mark.parametrize("form", ["tensor", "tuple", "dict"])
def test_flops_of_the_example(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    class Counted(tiny.Tiny):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    module, example = Counted(), torch.zeros(5, 4)
    module.example_input_array = {"tensor": example, "tuple": (example,), "dict": {"x": example}}[
        form
    ]
    tiny.trainer(tmp_path, ModelSummary(), max_epochs=1).fit(module, tiny.loader())
    # Two linear layers, 4 to 6 and 6 to 1: a multiplication and an addition for each weight.
    assert f"{5 * 2 * (4 * 6 + 6 * 1):,} FLOPs" in capsys.readouterr().out
    assert module.net[1].num_batches_tracked == 4 * 1
