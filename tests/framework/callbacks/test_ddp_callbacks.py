"""Callbacks that change training do the same in two processes as in one with the double batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

PROGRAM = Path(__file__).with_name("ddp_program.py")

pytestmark = pytest.mark.slow


def run(out: str, batch: int, **options: Any) -> dict[str, dict[str, Any]]:
    Path(out).mkdir()
    subprocess.run(
        [sys.executable, str(PROGRAM), out, str(batch), json.dumps(options)],
        check=True,
        cwd=out,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    return json.loads(Path(out, f"{out}.json").read_text("utf-8"))


# capabilities E; issue: DDP for every kind of callback
def test_two_processes_end_as_one_with_the_double_batch() -> None:
    """With each callback, and once more with a resumed run of finetuning."""
    one, two = run("one", 16), run("two", 8, devices=2, strategy="ddp")
    assert one["finetuning, resumed"] == one["finetuning"]
    assert one.keys() == two.keys()
    for case, weights in one.items():
        assert weights.keys() == two[case].keys()
        for name, value in weights.items():
            other = torch.tensor(two[case][name])
            assert torch.allclose(other, torch.tensor(value), atol=1e-5), (case, name)
