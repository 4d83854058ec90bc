"""A process killed at random moments, again and again: the table ends with each step once."""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import time
from pathlib import Path

CHILD = """
import json, os, sys, time
from pathlib import Path
from renshu.loggers.csv import CSVLogger

folder, steps = Path(sys.argv[1]), int(sys.argv[2])
mark = folder / "checkpoint.json"
start = json.loads(mark.read_text()) if mark.exists() else 0
logger = CSVLogger(flush_logs_every_n_steps=3)
logger.open(folder, resume=start > 0)
print("ready", flush=True)
for step in range(start, steps):
    logger.log_metrics({"loss": 1 / (step + 1), "epoch": step // 20, "samples": 8 * step}, step)
    if step % 5 == 4:
        logger.log_metrics({"val_loss": 2 / (step + 1)}, step)
    if step % 30 == 29:
        logger.log_metrics({f"metric_{step // 30}": float(step)}, step)
    if step % 7 == 6:
        # as the trainer does: the logger is durable before the checkpoint becomes valid
        logger.save()
        mark.with_suffix(".tmp").write_text(json.dumps(step + 1))
        os.replace(mark.with_suffix(".tmp"), mark)
    time.sleep(0.001)
logger.finalize("success")
"""
STEPS = 200


def test_random_kills_leave_each_step_once(tmp_path: Path) -> None:  # pains/trainer.md row 29
    chance = random.Random(3)
    killed = 0
    for _ in range(60):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(STEPS)], stdout=subprocess.PIPE
        )
        with child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            if killed < 8:
                time.sleep(chance.uniform(0.0, 0.05))
                child.kill()
        if child.returncode == 0:
            break
        killed += 1
        _check(tmp_path, whole=False)
    assert killed == 8
    _check(tmp_path, whole=True)


def _check(folder: Path, *, whole: bool) -> None:
    path = folder / "metrics.csv"
    saved = folder / "checkpoint.json"
    steps = json.loads(saved.read_text()) if saved.exists() else 0
    if not path.exists():
        assert steps == 0
        return
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["samples"]]
    assert [int(row["step"]) for row in rows] == list(range(len(rows)))
    assert len(rows) >= steps
    if whole:
        assert len(rows) == STEPS
    for row in rows[: len(rows) if whole else steps]:
        step = int(row["step"])
        assert float(row["loss"]) == 1 / (step + 1)
        assert row["val_loss"] == (repr(2 / (step + 1)) if step % 5 == 4 else "")
        for number in range(STEPS // 30):
            expected = repr(float(step)) if step == 30 * number + 29 else ""
            assert row.get(f"metric_{number}", "") == expected
