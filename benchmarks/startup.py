"""How long one waits: for imports, for the first training step, for the command line's help.

Every figure is that of whole new processes, taken in turns, median of 9. Files are in the system's
cache and bytecode is compiled: one round before the first is thrown away. Quick takes one round.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import _table

LIGHTNING = _table.named("pytorch-lightning")
EXAMPLE = _table.ROOT / "examples" / "classifier.py"

IMPORTS = {
    "renshu": (
        "from renshu import Trainer, Module, DataModule, Callback, seed_everything\n"
        "Trainer(accelerator='cpu')"
    ),
    "lightning": (
        "from pytorch_lightning import Trainer, LightningModule, LightningDataModule, Callback\n"
        "from pytorch_lightning import seed_everything\n"
        "Trainer(accelerator='cpu')"
    ),
}

# What examples/classifier.py does, without a trainer: the least that one could wait for.
PLAIN = """
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(1)
x, y = map(torch.tensor, load_digits(return_X_y=True))
train, val = random_split(TensorDataset(x.float() / 16, y), [0.8, 0.2])
net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
for x, y in DataLoader(train, 32, shuffle=True):
    first_step()
    loss = nn.functional.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
"""

# Written in front of a script: its first step says when it was, and ends the process.
CLOCK = """
def first_step():
    import os, sys, time
    sys.__stdout__.write(f"\\nfirst step: {time.time()}\\n")
    sys.__stdout__.flush()
    os._exit(0)
"""

HELP = {
    "renshu --help": ["--help"],
    "renshu train --help": ["train", "--help"],
    "renshu train image_classification --help": ["train", "image_classification", "--help"],
    "the error for a mistyped option": [
        "train",
        "image_classification",
        "--trainer.max_epoch",
        "3",
    ],
}

# Says on its last line whether the command line loaded torch.
WITHOUT_TORCH = """
import sys
from renshu.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("torch" in sys.modules)
"""


def process(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """One process to its end, on one thread and without a terminal."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)


def after_torch(code: str) -> float:
    """Seconds that `code` takes in a process that has imported torch."""
    script = (
        "import time, torch\nstart = time.perf_counter()\n"
        f"{code}\nprint('seconds:', time.perf_counter() - start)"
    )
    return _said(process([sys.executable, "-W", "ignore", "-c", script]), "seconds:")


def until_first_step(script: str) -> float:
    """Seconds from the start of a process to the first training step of `script`."""
    start = time.time()
    ran = process([sys.executable, "-W", "ignore", "-c", CLOCK + script])
    return _said(ran, "first step:") - start


def wall(arguments: list[str]) -> float:
    """Seconds of one `renshu` command."""
    start = time.perf_counter()
    process([str(Path(sys.executable).with_name("renshu")), *arguments])
    return time.perf_counter() - start


def _said(ran: subprocess.CompletedProcess[str], label: str) -> float:
    for line in ran.stdout.splitlines():
        if line.startswith(label):
            return float(line.removeprefix(label))
    raise SystemExit(f"no {label!r} from a measured process:\n{ran.stdout}\n{ran.stderr}")


def scripts() -> dict[str, str]:
    """The README's classifier for renshu, for Lightning (only its import differs) and by hand."""
    source = EXAMPLE.read_text(encoding="utf-8")
    step = "def training_step(self, batch, batch_idx):\n"
    source = source.replace(step, f"{step}        first_step()\n")
    lightning = source.replace(
        "from renshu import Module, Trainer, seed_everything",
        "from pytorch_lightning import LightningModule as Module, Trainer, seed_everything",
    )
    if source.count("first_step()") != 1 or lightning == source:
        raise SystemExit(f"{EXAMPLE} is not what this benchmark expects")
    return {"plain": PLAIN, "renshu": source, "lightning": lightning}


def in_turns(runs: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each of `runs`, taken in turns, without a first round if there are several."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + (rounds > 1)):
        for name, run in runs.items():
            seconds[name].append(run())
    return {name: values[-rounds:] for name, values in seconds.items()}


def measure(quick: bool) -> Iterable[_table.Row]:
    """All rows."""
    rounds = 1 if quick else 9
    imports = in_turns({n: lambda c=code: after_torch(c) for n, code in IMPORTS.items()}, rounds)
    yield _table.Row(
        "importing Trainer, Module, DataModule, Callback, seed_everything and "
        'Trainer(accelerator="cpu"), above import torch',
        "s",
        renshu=statistics.median(imports["renshu"]),
        peer=statistics.median(imports["lightning"]),
        peer_version=LIGHTNING,
        reach="<= 0.3",
        spread=_spread(imports["renshu"]),
    )
    steps = in_turns({n: lambda s=s: until_first_step(s) for n, s in scripts().items()}, rounds)
    plain = steps.pop("plain")
    above = {
        name: [value - base for value, base in zip(values, plain, strict=True)]
        for name, values in steps.items()
    }
    yield _table.Row(
        "process start to the first training step of the README's classifier, above the same "
        "in plain torch",
        "s",
        renshu=statistics.median(above["renshu"]),
        peer=statistics.median(above["lightning"]),
        peer_version=LIGHTNING,
        reach="<= 0.8",
        spread=f"{_spread(above['renshu'])}; plain torch {statistics.median(plain):.2f}",
    )
    yield from command_line(rounds)


def command_line(rounds: int) -> Iterable[_table.Row]:
    """How fast the command line answers, and that it does so without torch."""
    loaded = 0
    for what, arguments in HELP.items():
        seconds = in_turns({what: lambda a=arguments: wall(a)}, rounds)[what]
        yield _table.Row(
            what,
            "s",
            renshu=statistics.median(seconds),
            reach="<= 0.6",
            spread=_spread(seconds),
        )
        ran = process([sys.executable, "-c", WITHOUT_TORCH, *arguments])
        loaded += ran.stdout.strip().splitlines()[-1:] != ["False"]
    yield _table.Row("of these four, how many import torch", "", renshu=loaded, reach="<= 0")


def _spread(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


if __name__ == "__main__":
    _table.main(__file__, measure)
