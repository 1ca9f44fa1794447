"""Ending a run in good order when it is asked to stop."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupt:
    """SIGINT and SIGTERM end the run after the current step, with a checkpoint; a second one ends it at once."""

    def __init__(self) -> None:
        self._raised = False
        self._before: dict[int, Any] = {}

    def raised(self) -> bool:
        """Whether a signal has come."""
        return self._raised

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: object) -> None:
        self._raised = True
        signal.signal(number, self._before[number])
