"""Jobs on processes of this machine, each with a limit of time and memory.

A cluster's pool has the same `run`: jobs in, outcomes out, in any order.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Outcome:
    """What became of a job: its result, or why there is none."""

    job: Any
    result: Any = None
    reason: str | None = None


class Pool(Protocol):
    """Runs a function on jobs somewhere."""

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome]:
        """An outcome a job, as they come; a job that fails has a reason, and the others go on."""
        ...


@dataclass(frozen=True)
class LocalPool:
    """So many processes on this machine.

    Attributes:
        workers: processes; each runs one job at a time and stays for the next one.
        seconds: a job that takes longer is ended.
        megabytes: memory that a job may take above what its process has at its start; enforced
            where the system limits address space (Linux).
    """

    workers: int = 2
    seconds: float = 600.0
    megabytes: int = 4096

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Outcome]:
        """`function` must be importable by name, jobs and results must be picklable.

        A process that dies or is ended is replaced. Outcomes are yielded as they come.
        """
        waiting = iter(jobs)
        staff = [_Worker(function, self.megabytes) for _ in range(self.workers)]
        try:
            busy = [worker for worker in staff if worker.give(waiting, self.seconds)]
            while busy:
                for worker in _ready(busy):
                    outcome = worker.collect(self.seconds)
                    if outcome is None:
                        continue
                    if worker.ended:
                        busy.remove(worker)
                        staff.remove(worker)
                        worker = _Worker(function, self.megabytes)
                        staff.append(worker)
                        busy.append(worker)
                    # The next job starts before its caller looks at this outcome.
                    if not worker.give(waiting, self.seconds):
                        busy.remove(worker)
                    yield outcome
        finally:
            for worker in staff:
                worker.end()


class _Worker:
    """A process, and the job that it has."""

    def __init__(self, function: Callable[[Any], Any], megabytes: int) -> None:
        self.connection, theirs = _CONTEXT.Pipe()
        arguments = (theirs, megabytes)
        self._process = _CONTEXT.Process(target=_work, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._function = function
        self._job: Any = None
        self.deadline = float("inf")
        self.ended = False

    def give(self, waiting: Iterator[Any], seconds: float) -> bool:
        """Start the next job; False if there is none."""
        for self._job in waiting:
            # A new process first imports what the job needs: that is not the job's time.
            self.deadline = time.monotonic() + seconds + (0 if self._function is None else 60)
            with contextlib.suppress(BrokenPipeError):  # a dead process is found by collect
                self.connection.send((self._function, self._job))
            self._function = None
            return True
        return False

    def collect(self, seconds: float) -> Outcome | None:
        """What became of the job; None while it goes on."""
        if self.connection.poll():
            try:
                kind, content = self.connection.recv()
            except (EOFError, OSError):
                return self._lost()
            if kind == "begun":
                self.deadline = time.monotonic() + seconds
                return None
            return Outcome(self._job, **{kind: content})
        if time.monotonic() >= self.deadline:
            self.end()
            return Outcome(self._job, reason=f"took longer than {seconds:g} s: ended")
        return None

    def _lost(self) -> Outcome:
        self._process.join()
        code = self._process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.end()
        return Outcome(self._job, reason=f"its process died ({how})")

    def end(self) -> None:
        """End the process, whatever it does."""
        self.ended = True
        self._process.kill()
        self._process.join()
        self.connection.close()


def _ready(busy: list[_Worker]) -> list[_Worker]:
    """Workers that have said something or are out of time; waits for one."""
    left = min(worker.deadline for worker in busy) - time.monotonic()
    said = wait([worker.connection for worker in busy], max(left, 0))
    late = time.monotonic()
    return [w for w in busy if w.connection in said or w.deadline <= late]


def _work(connection: Connection, megabytes: int) -> None:
    """The life of a worker process."""
    # Jobs share the processors: a second thread in one would only slow the other.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    function: Callable[[Any], Any] | None = None
    while True:
        try:
            given, job = connection.recv()
        except (EOFError, OSError):
            return
        function = given or function
        assert function is not None  # it comes with the first job
        _limit(megabytes)
        connection.send(("begun", None))
        try:
            answer = ("result", function(job))
        except MemoryError:
            answer = ("reason", f"needed more than {megabytes} MB of memory")
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            answer = ("reason", f"{type(error).__name__}: {said}")
        connection.send(answer)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _limit(megabytes: int) -> None:
    """Allow so much address space above what is in use now."""
    if not sys.platform.startswith("linux"):
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        used = int(file.read().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = used + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))
