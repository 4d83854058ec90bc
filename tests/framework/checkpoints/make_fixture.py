"""Writes the checkpoint that tests read for ever; run once for each released format."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch

from renshu.checkpoints import snapshot, write


def main() -> None:
    """Write tests/fixtures/checkpoint-format-1."""
    weight, line = torch.arange(6.0).reshape(2, 3), torch.arange(4.0)
    exponents = torch.tensor([1.0, 2.0]).to(torch.float8_e8m0fnu)
    state = {
        "model": {"a.weight": weight, "tied.weight": weight, "t.weight": weight.clone().t()},
        "state": {0: {"exp_avg": torch.tensor([0.5, 0.25]), "e8": exponents}},
        "views": [line[1:3], line],
        "milestones": Counter({30: 2, 80: 1}),
        "odd": (float("inf"), b"\x00", {"a", 1}, 2**200, Path("a/b")),
        "array": np.array([1, 2], dtype=">i4"),
    }
    folder = Path(__file__).parents[2] / "fixtures" / "checkpoint-format-1"
    write(snapshot(state, step=120, batches=480, meta={"loss": 0.5}), folder)


if __name__ == "__main__":
    main()
