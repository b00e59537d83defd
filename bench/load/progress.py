"""A progress bar on stderr: what has been done of what is to do, and what is being done."""

import sys
import time

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
        if not sys.stderr.isatty():
            if what != self._said:
                print(f"{now - self._begun:6.1f} s  {what}", file=sys.stderr, flush=True)
            self._said = what
        elif now - self._drawn_at > DRAW_SECONDS:
            filled = WIDTH * self._done // self._total
            bar = "#" * filled + "." * (WIDTH - filled)
            print(f"\r[{bar}] {100 * self._done // self._total:3} %  {what:<50.50}", end="", file=sys.stderr, flush=True)
            self._drawn_at = now

    def end(self) -> None:
        """Remove the bar."""
        if sys.stderr.isatty():
            print("\r" + " " * (WIDTH + 62) + "\r", end="", file=sys.stderr, flush=True)
