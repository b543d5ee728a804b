"""One line on a terminal that says how far a long run is; nothing elsewhere, nor for short ones."""

from __future__ import annotations

import sys
import time
from typing import TextIO


class Progress:
    def __init__(self, what: str, stream: TextIO | None = None, patience: float = 1.0) -> None:
        self._stream = stream or sys.stderr
        self._what = what
        self._terminal = self._stream.isatty()
        self._due = time.monotonic() + patience
        self._shown = False

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """`what` stands for the counts where they have no unit."""
        now = time.monotonic()
        if self._terminal and now >= self._due:
            counts = what or f"{done} of {total}"
            self._stream.write(f"\r\x1b[K{self._what}: {100 * done // total}% ({counts})")
            self._stream.flush()
            self._shown = True
            self._due = now + 0.2

    def close(self) -> None:
        """Takes the line away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._shown = False
