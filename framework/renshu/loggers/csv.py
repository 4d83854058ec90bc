"""The run's values as a table: `metrics.csv`, one row an optimiser step."""

from __future__ import annotations

import csv
import io
import os
import threading
import time
from collections.abc import Iterator, Mapping
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
        flush_logs_every_n_steps: rows kept in memory before they are written; every 10 seconds and
            at each checkpoint they are written anyway.
    """

    name = "csv"

    def __init__(
        self, save_dir: str | Path | None = None, *, flush_logs_every_n_steps: int = 100
    ) -> None:
        self.save_dir = save_dir
        self.flush_logs_every_n_steps = flush_logs_every_n_steps
        self._lock = threading.RLock()
        self._path: Path | None = None
        self._forget()

    def _forget(self) -> None:
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []  # not final in the file; the last one is open
        self._last = ""  # the line of the file that the first of them has there
        self._mark = -1
        self._flushed_at, self._ended = time.monotonic(), False

    @property
    def path(self) -> Path:
        """The table's file."""
        if self._path is None:
            raise RunError("the CSV logger is not open", mend="call open(run_dir, resume=False)")
        return self._path

    def open(self, run_dir: Path, *, resume: bool) -> None:
        self._forget()
        self._path = Path(self.save_dir or run_dir) / "metrics.csv"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if not resume:
            set_aside(self._path)
        elif self._path.exists():
            self._go_on()

    def _go_on(self) -> None:
        """Cut the table that is there to whole rows; the last one is open again."""
        text = self.path.read_bytes().decode("utf-8", errors="replace")
        rows = [*csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))]
        columns = self._columns = [name.removeprefix("'") for name in rows[0]] if rows else []
        if "step" not in columns:
            what = "the table of metrics was changed by another program"
            raise RunError(what, where=self.path, mend="move it away; a new one is begun")
        at = columns.index("step")
        while len(rows[-1]) != len(columns) or not (rows[-1][at].isdigit() or len(rows) == 1):
            rows.pop()
        lines = [",".join(cells) + "\n" for cells in rows[1:]]
        write_atomically(self.path, [_header(columns), *lines])
        if lines:
            cells = zip(columns, rows[-1], strict=True)
            self._rows, self._last = [{n: cell for n, cell in cells if cell}], lines[-1]
            self._mark = int(rows[-1][at])

    def log_hyperparams(self, params: Mapping[str, Any]) -> None:
        write_hparams(self.path.with_name("hparams.yaml"), params)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        with self._lock:
            path, newest = self.path, int(self._rows[-1]["step"]) if self._rows else -1
            if step < self._mark:
                return
            if step < newest:
                raise RunError(f"step {step} was logged after {newest}", where=path)
            if step > newest:
                late = time.monotonic() - self._flushed_at > _FLUSH_SECONDS
                if self._rows and (late or len(self._rows) >= self.flush_logs_every_n_steps):
                    self._write()
                    self._rows, self._last = [], ""
                self._rows.append({"step": str(step)})
            for name, value in metrics.items():
                number = value if type(value) is int else float(value)
                self._rows[-1]["logged step" if name == "step" else name] = repr(number)
            if self._ended:
                self.save()

    def save(self) -> None:
        with self._lock:
            if self._rows:
                self._write()
                self._rows = self._rows[-1:]
                self._last = _line(self._rows[0], self._columns)
                with self.path.open("rb") as file:
                    os.fsync(file.fileno())

    def finalize(self, status: str) -> None:
        self.save()
        self._ended = True

    def _write(self) -> None:
        """Append all rows; the file is written anew for a new column or if its last row grew."""
        names = dict.fromkeys([*self._columns, *(name for row in self._rows for name in row)])
        columns = sorted(names, key=lambda n: _FIRST.index(n) if n in _FIRST else len(_FIRST))
        text = "".join(_line(row, columns) for row in self._rows)
        if columns == self._columns and text.startswith(self._last):
            self._append(text[len(self._last) :])
        else:
            write_atomically(self.path, self._anew(columns, text))
        self._columns, self._flushed_at = columns, time.monotonic()

    def _append(self, text: str) -> None:
        """All of the text or nothing: a full disk leaves no half row and no row twice."""
        size = self.path.stat().st_size
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(text)
        except OSError:
            os.truncate(self.path, size)
            raise

    def _anew(self, columns: list[str], text: str) -> Iterator[str]:
        """The file's lines under these columns, and `text` in place of its last row."""
        yield _header(columns)
        if self._columns:
            with self.path.open(encoding="utf-8", newline="") as file:
                rows = csv.reader(file)
                next(rows)
                for cells in rows:
                    if ",".join(cells) + "\n" != self._last:
                        yield _line(dict(zip(self._columns, cells, strict=True)), columns)
        yield text


def _line(row: Mapping[str, str], columns: list[str]) -> str:
    return ",".join(row.get(name, "") for name in columns) + "\n"


def _header(columns: list[str]) -> str:
    text, names = io.StringIO(), [f"'{n}" if n.startswith(_FORMULA) else n for n in columns]
    csv.writer(text, lineterminator="\n").writerow(names)
    return text.getvalue()
