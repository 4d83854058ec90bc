"""What a run ran on: `environment.json`, and what in it makes an exact continuation impossible."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from renshu.errors import DataError
from renshu.loggers.files import write_atomically

FILE = "environment.json"

PACKAGES = (
    "renshu",
    "torch",
    "numpy",
    "torchmetrics",
    "safetensors",
    "torchvision",
    "scikit-learn",
    "datasets",
    "pillow",
)
"""Packages whose version is recorded if they are installed."""

_EXACT = (
    "packages.torch",
    "platform.system",
    "cpu.machine",
    "cpu.capability",
    "threads.torch",
    "devices",
)
"""What must be the same for a continued run to be bit-equal to an uninterrupted one."""

_FLAGS = re.compile(r"avx.*|amx.*|fma|f16c|sse4_2|asimd.*|neon|sve.*|bf16")
_SECRET = re.compile(r"(?i)token|secret|passw|credential|(api|access|private)[_-]?key")
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_QUERY = re.compile(r"(?i)([?&;](?:[\w-]*(?:token|secret|passw|key|sig)[\w-]*)=)[^&;#\s]+")


def describe(
    seed: int | None = None, fingerprint: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Versions, machine, devices, threads, git commit and command line, as plain JSON values.

    Args:
        seed: the run's seed.
        fingerprint: what identifies the data (`DataModule.fingerprint()`).
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "seed": seed,
        "python": platform.python_version(),
        "packages": packages(),
        "platform": {"system": platform.system(), "release": platform.release()},
        "cpu": cpu(),
        "threads": threads(),
        "devices": devices(),
        "git": git_state(),
        "fingerprint": None if fingerprint is None else dict(fingerprint),
    }


def write_environment(
    run_dir: str | Path,
    seed: int | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> Path:
    """Write `environment.json` into a run folder, whole or not at all; returns its path."""
    path = Path(run_dir) / FILE
    text = json.dumps(describe(seed, fingerprint), indent=2, ensure_ascii=False)
    write_atomically(path, [text, "\n"])
    return path


def read_environment(run_dir: str | Path) -> dict[str, Any]:
    """What `write_environment` wrote; {} if there is none. Raises DataError if it is broken."""
    path = Path(run_dir) / FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", where=path) from error
    if not isinstance(found, dict):
        raise DataError("is not a JSON object", where=path)
    return found


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Differences that keep a continued run from being bit-equal to an uninterrupted one.

    Args:
        old: what `describe` said when the run was made.
        new: what it says now.

    Returns:
        One line a difference, such as `"packages.torch: 2.9.1 then, 2.14.1 now"`.
    """
    changed = _differences(old, new)
    return [changed[key] for key in _EXACT if key in changed and key in _leaves(old)]


def check_fingerprint(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, *, allow: bool = False
) -> None:
    """Refuse data that are not those of the run; raises DataError naming what differs.

    A fingerprint that is missing on either side says nothing and is not compared.
    """
    if allow or not old or not new:
        return
    then, now = dict(old), json.loads(json.dumps(new))  # tuples are lists in what was read
    if changed := [part for part in sorted(then.keys() | now) if then.get(part) != now.get(part)]:
        raise DataError(
            "the data are not those that the run was trained on",
            where="; ".join(_change(part, then.get(part), now.get(part)) for part in changed[:12]),
            mend="give the same data, or --allow_changed_data",
        )


def _change(part: str, then: Any, now: Any) -> str:
    """How a part of the data changed, without sums and lists that nobody can compare by eye."""
    before, after = (
        value.get("files", 0) if isinstance(value, Mapping) else 0 for value in (then, now)
    )
    if before == after:
        return f"{part}: content differs"
    return f"{part}: {before} files then, {after} now"


def command_line(arguments: Sequence[str] | None = None) -> str:
    """This process's command as it can be pasted into a shell, with secrets masked."""
    words = list(sys.argv if arguments is None else arguments)
    program = Path(words[0]) if words and words[0] else Path("python")
    if program.name == "renshu" or program.parts[-2:] == ("renshu", "__main__.py"):
        start = ["renshu"]
    else:
        start = ["python", str(program)] if program.suffix == ".py" else [str(program)]
    return shlex.join(start + mask(words[1:]))


def mask(words: Sequence[str]) -> list[str]:
    """Replace what looks like a secret: values of --…token and the like, user names in URLs."""
    masked: list[str] = []
    hide = False
    for word in words:
        name, equals, _ = word.partition("=")
        if hide and not word.startswith("--"):
            word = "***"
        elif equals and _SECRET.search(name):
            word = f"{name}=***"
        else:
            word = _QUERY.sub(r"\1***", _USER.sub("***", word))
        hide = word.startswith("-") and not equals and bool(_SECRET.search(name))
        masked.append(word)
    return masked


def packages() -> dict[str, str]:
    """Versions of the installed packages that matter."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def cpu() -> dict[str, Any]:
    """Processor: machine type, model, cores and the instruction sets that decide about numerics."""
    import torch

    model, flags = _cpuinfo()
    return {
        "machine": platform.machine(),
        "model": model or platform.processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "flags": flags,
    }


def _cpuinfo() -> tuple[str, list[str]]:
    """Model and numeric flags as Linux names them; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "", []
    fields: dict[str, str] = {}
    for line in text.split("\n\n", 1)[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name", ""), sorted(f for f in flags.split() if _FLAGS.fullmatch(f))


def threads() -> dict[str, Any]:
    """Threads that torch computes with; they change the order of sums."""
    import torch

    return {"torch": torch.get_num_threads(), "interop": torch.get_num_interop_threads()}


def devices() -> list[dict[str, Any]]:
    """Accelerators that torch sees; [] on a machine with CPUs alone."""
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        about = torch.cuda.get_device_properties(index)
        memory = round(about.total_memory / 2**30, 1)
        bf16 = about.major >= 8  # Ampere is the first with bfloat16 units
        found.append({"kind": "cuda", "name": about.name, "memory_gib": memory, "bf16": bf16})
    if torch.backends.mps.is_available():
        found.append({"kind": "mps", "name": "Apple GPU"})
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory and whether tracked files differ; None without one."""
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    # A repository's own settings may name a program to start; this switches it off.
    command = ["git", "-c", "core.fsmonitor=false", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Dotted key → what was and what is, wherever that differs."""
    # Through JSON, since one side was read from a file: tuples are lists there.
    then, now = _leaves(old), _leaves(json.loads(json.dumps(new)))
    return {
        key: f"{key}: {_short(then.get(key))} then, {_short(now.get(key))} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    }


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted key → value of everything in a nested mapping."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping) and bool(value)
        found |= _leaves(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def _short(value: Any) -> str:
    text = f"a list of {len(value)}" if isinstance(value, list) and value else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
