"""What a SIGHUP means. A terminal that is closed sends it to all that was started there; people and their tools (logrotate,
ExecReload) send it to have a configuration read again. The first ends a program, the second must not."""

import logging
import os
import signal
from collections.abc import Callable

log = logging.getLogger("paychan.hangup")


class HangUp:
    """Made when the program starts: it has to know whether there was a terminal."""

    def __init__(self) -> None:
        self._terminals = [number for number in range(3) if os.isatty(number)]

    def is_the_terminals(self) -> bool:
        """Return whether this program's terminal is gone: the kernel refuses what only terminals do on one that hung up."""
        return bool(self._terminals) and not any(map(os.isatty, self._terminals))

    def heard(self, stop: Callable[[], object]) -> None:
        """Act on a SIGHUP in a process that reads its configuration only once. stop(): called if it has to end."""
        if self.is_the_terminals():
            stop()
        else:
            log.info("SIGHUP: this process reads its configuration when it starts; restart it to change it")


class Wishes:
    """What signals have asked of a program that keeps others running. Made when it starts: a SIGHUP is heard from then on.

    is_stopping: it is to end. is_reload_wanted: others are to read their configuration again; who has them do so sets it back.
    """

    def __init__(self) -> None:
        self._hang_up = HangUp()
        self.is_stopping = self.is_reload_wanted = False
        signal.signal(signal.SIGHUP, self._on_hang_up)

    def hear_stops(self) -> None:
        """From now on SIGINT and SIGTERM ask for the end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_stop)

    def _on_stop(self, *_: object) -> None:
        self.is_stopping = True

    def _on_hang_up(self, *_: object) -> None:
        if self._hang_up.is_the_terminals():
            self.is_stopping = True
        else:
            self.is_reload_wanted = True
