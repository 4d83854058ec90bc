"""`renshu import-lightning FILE.ckpt --out FOLDER`: Lightning's checkpoint as one of renshu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from renshu.cli.trained import CommandParser
from renshu.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from renshu.cli.main import Session

LIMIT = 64 << 30
"""Bytes of a file that is read."""

_TAKEN = {
    "state_dict": "weights and buffers",
    "hyper_parameters": "arguments of the module's __init__",
    "datamodule_hyper_parameters": "arguments of the data module's __init__",
    "epoch": "number of the epoch",
    "global_step": "number of the optimiser step",
}
_LEFT = {
    "optimizer_states": "a fit starts anew from the weights",
    "lr_schedulers": "they are made anew by configure_optimizers",
    "loops": "positions in Lightning's loops",
    "callbacks": "their states are those of Lightning's callbacks",
    "pytorch-lightning_version": "",
    "hparams_name": "",
    "datamodule_hparams_name": "",
    "native_amp_scaling_state": "",
}


def run(arguments: Sequence[str], session: Session) -> int:
    """Convert one file; says what was taken over and what was not."""
    more = (
        "Write Lightning's FILE.ckpt as a checkpoint folder of renshu. Nothing in the file is run:"
    )
    parser = CommandParser("import-lightning", f"{more} torch reads it with weights_only=True.")
    parser.add_argument("file", metavar="FILE.ckpt", type=Path)
    parser.add_argument("--out", type=Path, help="new folder; default: FILE without its ending")
    asked = parser.parse_args(arguments)
    out = asked.out or asked.file.with_suffix("")
    if out.exists():
        raise ConfigError("something is there already", where=out, mend="--out NEW_FOLDER")
    found = read_lightning(asked.file)

    from renshu.checkpoints import snapshot, write

    state = {"model": found["state_dict"]} | {k: found[k] for k in _TAKEN if k in found}
    del state["state_dict"]
    counts = {"step": int(found.get("global_step", 0)), "epoch": int(found.get("epoch", 0))}
    write(snapshot(state, kind="weights", **counts), out)
    for line in _report(found):
        print(line)
    print(f"use it    YourModule.load_from_checkpoint({str(out)!r})")
    return 0


def read_lightning(file: Path) -> dict[str, Any]:
    """The content of a Lightning checkpoint, tensors on the CPU; no code of the file is run.

    Raises:
        CheckpointError: missing, too large, holding more than tensors and plain values, or not
            Lightning's.
    """
    import torch

    if not file.is_file():
        raise CheckpointError("there is no such file", where=file)
    if file.stat().st_size > LIMIT:
        raise CheckpointError(f"the file has more than {LIMIT:,} bytes", where=file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a file that anyone has written makes of the reader
        said = "the file holds more than tensors and plain values, or is damaged"
        first = str(error).strip().split("\n")[0]
        mend = (
            "load it with Lightning where you trust it, and save hyper-parameters as plain values"
        )
        raise CheckpointError(f"{said}: {first}", where=file, mend=mend) from error
    weights = found.get("state_dict") if isinstance(found, Mapping) else None
    if not isinstance(weights, Mapping):
        raise CheckpointError(
            "this is no checkpoint of Lightning", where=file, allowed="state_dict"
        )
    return dict(found)


def _report(found: Mapping[str, Any]) -> list[str]:
    """A line for each part of the file."""
    lines = []
    for name, value in found.items():
        if name in _TAKEN:
            lines.append(f"taken     {name}: {_TAKEN[name]}, {_size(value)}")
        else:
            why = _LEFT.get(name, "renshu does not know it")
            lines.append(f"left out  {name}" + (f": {why}" if why else ""))
    return lines


def _size(value: Any) -> str:
    return f"{len(value)} entries" if isinstance(value, Mapping) else str(value)
