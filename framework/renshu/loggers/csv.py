"""The run's values as a table: `metrics.csv`, one row an optimiser step."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from renshu.errors import RunError
from renshu.loggers.files import set_aside, write_atomically, write_hparams
from renshu.loggers.logger import Logger

_FIRST = ("epoch", "step", "samples")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
_FLUSH_SECONDS = 10.0


class CSVLogger(Logger):
    """Writes `metrics.csv` and `hparams.yaml`.

    The columns are `epoch`, `step` and `samples`, then the metrics by first appearance; a cell is
    empty where a step has no such value. Numbers are written so that reading gives the same float.
    A name that a spreadsheet would take for a formula gets a leading apostrophe.

    The newest row stays open for further values of its step; all rows before it are final. So after
    a kill the file is cut to whole rows, its last row is opened again, and what is sent again for
    earlier steps is dropped.

    Args:
        save_dir: folder to write to; None is the run's folder.
        prefix: put before each metric's name, with a `-` between.
        flush_logs_every_n_steps: rows kept in memory before they are written; every 10 seconds and
            at each checkpoint they are written anyway.
    """

    name = "csv"

    def __init__(
        self,
        save_dir: str | Path | None = None,
        *,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        self.save_dir = None if save_dir is None else Path(save_dir)
        self.prefix = f"{prefix}-" if prefix else ""
        self.flush_logs_every_n_steps = flush_logs_every_n_steps
        self.log_dir: Path | None = None
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._hparams: dict[str, Any] = {}
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []  # final, not yet in the file
        self._row: dict[str, str] = {}  # the open one
        self._tail: dict[str, str] | None = None  # what the file's last row says of the open one
        self._step = self._mark = -1
        self._flushed_at = time.monotonic()
        self._ended = False

    @property
    def path(self) -> Path:
        """The table's file."""
        if self.log_dir is None:
            raise RunError("the CSV logger is not open", mend="call open(run_dir, resume=False)")
        return self.log_dir / "metrics.csv"

    def open(self, run_dir: Path, *, resume: bool) -> None:
        self._forget()
        self.log_dir = self.save_dir or Path(run_dir)
        self.log_dir.mkdir(parents=True, exist_ok=True)
        if not resume:
            set_aside(self.path)
        if not self.path.exists():
            return
        self._columns, last, size = _read_end(self.path)
        os.truncate(self.path, size)
        if last:
            cells = zip(self._columns, last, strict=True)
            self._row = {name: cell for name, cell in cells if cell}
            self._tail = dict(self._row)
            self._step = self._mark = int(self._row["step"])

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        self._hparams.update(params)
        write_hparams(self.path.with_name("hparams.yaml"), self._hparams)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        if self.log_dir is None:
            return
        with self._lock:
            if step < self._step:
                if step < self._mark:
                    return
                raise RunError(f"step {step} was logged after {self._step}", where=self.path)
            if step > self._step:
                self._next_row(step)
            for name, value in metrics.items():
                self._row[self._column(name)] = _number(value)
            if self._ended:
                self.save()

    def _column(self, name: str) -> str:
        if name in ("epoch", "samples"):
            return name
        name = self.prefix + name
        return "logged step" if name == "step" else name

    def _next_row(self, step: int) -> None:
        if self._row:
            self._rows.append(self._row)
        self._row = {"step": str(step)}
        self._step = step
        late = time.monotonic() - self._flushed_at > _FLUSH_SECONDS
        if late or len(self._rows) >= self.flush_logs_every_n_steps:
            self._flush(self._rows, None if self._rows else self._tail)

    def save(self) -> None:
        with self._lock:
            self._flush([*self._rows, self._row] if self._row else self._rows, dict(self._row))
            if self._columns:
                with self.path.open("rb") as file:
                    os.fsync(file.fileno())

    def finalize(self, status: str) -> None:
        if self.log_dir is not None:
            self.save()
        self._ended = True

    def _flush(self, rows: list[dict[str, str]], tail: dict[str, str] | None) -> None:
        """Write rows; the first may be the file's last row, which then stays or is replaced."""
        replaces = False
        if rows and self._tail and rows[0]["step"] == self._tail["step"]:
            replaces = rows[0] != self._tail
            rows = rows if replaces else rows[1:]
        columns = _ordered(self._columns, rows)
        if replaces or columns != self._columns:
            write_atomically(self.path, self._anew(columns, rows, replaces))
        elif rows:
            self._append("".join(_line(row, columns) for row in rows))
        self._columns, self._rows, self._tail = columns, [], tail
        self._flushed_at = time.monotonic()

    def _append(self, text: str) -> None:
        """All of the text or nothing: a full disk leaves no half row and no row twice."""
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError:
            os.truncate(self.path, size)
            raise

    def _anew(
        self, columns: list[str], rows: list[dict[str, str]], without_last: bool
    ) -> Iterator[str]:
        """All lines of the file with these columns and rows."""
        yield _header(columns)
        held: str | None = None
        for row in _read(self.path) if self._columns else ():
            if held is not None:
                yield held
            held = _line(dict(zip(self._columns, row, strict=True)), columns)
        if held is not None and not without_last:
            yield held
        yield from (_line(row, columns) for row in rows)


def _number(value: float) -> str:
    return repr(value) if type(value) is int else repr(float(value))


def _line(row: Mapping[str, str], columns: Iterable[str]) -> str:
    return ",".join(row.get(name, "") for name in columns) + "\n"


def _ordered(columns: list[str], rows: list[dict[str, str]]) -> list[str]:
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    first = [name for name in _FIRST if name in names]
    return first + [name for name in names if name not in _FIRST]


def _header(columns: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(_guard, columns))
    return text.getvalue()


def _guard(name: str) -> str:
    return f"'{name}" if name.startswith(_FORMULA) else name


def _unguard(text: str) -> str:
    return text[1:] if text.startswith("'") else text


def _read(path: Path) -> Iterator[list[str]]:
    """The rows below the header."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        yield from rows


def _read_end(path: Path) -> tuple[list[str], list[str], int]:
    """Columns, last whole row, and the size in bytes up to its end."""
    data = path.read_bytes()
    size = data.rfind(b"\n") + 1
    text = io.StringIO(data[:size].decode("utf-8", errors="replace"), newline="")
    columns = [_unguard(name) for name in next(csv.reader(text), [])]
    header = _header(columns).encode()
    if "step" not in columns or not data.startswith(header):
        raise RunError(
            "the table of metrics was changed by another program, so it cannot be continued",
            where=path,
            mend="move it away; a new one is begun",
        )
    while size > len(header):
        start = data.rfind(b"\n", 0, size - 1) + 1
        cells = data[start : size - 1].decode("utf-8", errors="replace").split(",")
        if len(cells) == len(columns) and cells[columns.index("step")].isdigit():
            return columns, cells, size
        size = start
    return columns, [], size
