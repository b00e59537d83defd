"""A progress bar on stderr: what has been done of what is to do, and what is being done."""

import contextlib
import sys
import time

from paychan.printing import say

WIDTH = 30
DRAW_SECONDS = 0.1


class Progress:
    """Counts up to `total`. Draws only on a terminal; elsewhere it says each new thing once."""

    def __init__(self, total: int) -> None:
        self._total, self._done = max(1, total), 0
        self._begun = time.monotonic()
        self._drawn_at, self._said = 0.0, ""

    def step(self, what: str, count: int = 0) -> None:
        """Say what is being done now; `count`: how much more has been done."""
        self._done = min(self._total, self._done + count)
        now = time.monotonic()
        if not is_shown():
            if what != self._said:
                say(f"{now - self._begun:6.1f} s  {what}")
            self._said = what
        elif now - self._drawn_at > DRAW_SECONDS:
            filled = WIDTH * self._done // self._total
            bar = "#" * filled + "." * (WIDTH - filled)
            _draw(f"\r[{bar}] {100 * self._done // self._total:3} %  {what:<50.50}")
            self._drawn_at = now

    def end(self) -> None:
        """Remove the bar."""
        if is_shown():
            _draw("\r" + " " * (WIDTH + 62) + "\r")


def is_shown() -> bool:
    """Return whether the bar is drawn."""
    return sys.stderr is not None and sys.stderr.isatty()


def _draw(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a terminal that has gone ends nothing
        sys.stderr.write(text)
        sys.stderr.flush()
