"""Freed memory stays with the process: the next step finds its pages ready."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from renshu_tasks.text.speed import keep_memory
if sys.argv[1] == "kept" and not keep_memory():
    sys.exit(77)

def steps(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        torch.zeros(30522, 384)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

steps(10)  # until the heap has found its size
print(steps(5))
"""


def faults(how: str) -> int:
    """Pages that the system had to bring in for five gradients of an embedding table."""
    command = [sys.executable, "-c", COUNT, how]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("the C library is not glibc")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_gradient_of_the_embedding_table_finds_its_pages_again() -> None:
    assert faults("freed") > 50_000  # 5 × 47 MB in pages of 4 KB
    assert faults("kept") < 1_000
