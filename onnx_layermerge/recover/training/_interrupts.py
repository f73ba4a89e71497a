"""Being asked to end (Ctrl-C, SIGTERM) as something that a loop looks at between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

__all__ = ["Interrupts"]


class Interrupts:
    """While it is entered the signals only set ``asked``; a second one does what it always did.

    Signals belong to the main thread; in another one, or where ``heed`` is off, nothing changes.
    """

    def __init__(self, heed: bool) -> None:
        self.asked = False
        self._heed = heed and threading.current_thread() is threading.main_thread()
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if self._heed:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._give_back()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
