"""Workers of a loader that die: the run ends at once, says why, and leaves no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

PROGRAM = """
    import os, signal, sys, time
    import torch
    from torch.utils.data import DataLoader, Dataset
    from renshu import Module, Trainer

    class Falling(Dataset):
        def __len__(self):
            return 64

        def __getitem__(self, index):
            if index == 40:
                {fall}
            return torch.ones(3)

    class Net(Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 1)

        def training_step(self, batch):
            return self.layer(batch).mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    if __name__ == "__main__":
        loader = DataLoader(Falling(), batch_size=4, num_workers=2)
        Trainer(accelerator="cpu", max_epochs=3, enable_progress_bar=False).fit(Net(), loader)
"""


# pains/security.md row 40
@pytest.mark.parametrize(
    ("fall", "named"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was ended by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGBUS)", "was ended by SIGBUS"),
        ("os._exit(7)", "ended with code 7"),
    ],
)
def test_a_dead_worker_ends_the_run_with_its_number_and_signal(
    tmp_path: Path, fall: str, named: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM).format(fall=fall), encoding="utf-8")
    started = time.monotonic()
    run = subprocess.Popen(
        [sys.executable, str(program)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    _, errors = run.communicate(timeout=60)

    last = errors.rpartition("RunError: ")[2]
    assert run.returncode == 1, errors
    assert last.startswith("a worker of a loader (process "), errors
    assert named in last
    assert "fewer workers or smaller batches" in last
    assert time.monotonic() - started < 45
    assert not _living(run.pid)


def _living(group: int) -> bool:
    """Whether a process of a group is still there 10 seconds after its leader has ended."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True
