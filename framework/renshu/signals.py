"""Ctrl-C and SIGTERM: the first asks the loop to stop and save, a second ends at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from renshu.messages import say

if TYPE_CHECKING:
    from renshu.plan import Plan

_WATCHED = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """`with Signals(plan):` — the handler only sets a flag; the loop acts on it between batches."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        # Python delivers signals to the main thread only; elsewhere there is nothing to set.
        if threading.current_thread() is threading.main_thread():
            for number in _WATCHED:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.plan.asked is not None:
            self.__exit__()
            self._before.clear()
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            signal.raise_signal(number)
            return
        self.plan.asked = number
        if self.plan.alone:  # several processes stop when all have heard of it
            self.plan.signal, self.plan.halt = number, True
        when = "after this batch" if self.plan.alone else "when all processes have heard of it"
        say(f"{signal.Signals(number).name}: stopping {when}; once more ends at once")


def shield_worker() -> None:
    """In a worker of a loader: leave the signals that reach the whole group to the main process.

    Ctrl-C is ignored, and SIGTERM once: torch ends a worker that hangs with a SIGTERM of its own,
    and Python's exit with one more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
