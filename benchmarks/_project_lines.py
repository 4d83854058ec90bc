"""Lines that one reads to change a project: `python benchmarks/_project_lines.py FOLDER`.

The Python and YAML files without tests, deployment and workflow: as `make size` counts, no blanks,
comments and docstrings. Python is to be formatted with `ruff format --line-length 100` before.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SIZE = runpy.run_path(str(Path(__file__).parent.parent / "tools" / "size.py"))


@dataclass(frozen=True)
class Peer:
    """A project of another template, counted by this program.

    Attributes:
        name: which template, and which files of it.
        lines: what was counted.
    """

    name: str
    lines: int


PEERS = [
    # src/templates/template-vision-classification: main 0325ec2, utils 066bc3b, data 3b5375c,
    # trainers 1ede4d6, models 290c03c, config 1a0152d; template-common: main 17219ee, utils
    # 0193479, config 09fbb49; with argparse, both kinds of checkpoints and TensorBoard.
    Peer("pytorch-ignite/code-generator, vision classification", 332),
    # src: train 024bdbf, eval 00fc220, data/mnist_datamodule 0410417, models/mnist_module 01f010a,
    # models/components/simple_dense_net 1a8a260, utils/utils 0257b29, utils/rich_utils 00badbe.
    Peer("lightning-hydra-template, 7 of its Python files and none of its configs", 448),
]


def lines(files: dict[str, bytes]) -> int:
    """Logical lines of the files of a project."""
    count: Callable[[str], int] = SIZE["code_lines"]
    total = 0
    for path, content in files.items():
        text = content.decode()
        if path.startswith(("tests/", "deploy/", ".")):
            continue
        if path.endswith(".py"):
            total += count(text)
        elif path.endswith(".yaml"):
            rows = map(str.strip, text.splitlines())
            total += sum(bool(row) and not row.startswith("#") for row in rows)
    return total


if __name__ == "__main__":
    home = Path(sys.argv[1])
    files = (path for path in home.rglob("*") if path.suffix in (".py", ".yaml"))
    print(lines({path.relative_to(home).as_posix(): path.read_bytes() for path in files}))
