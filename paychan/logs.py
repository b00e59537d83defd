"""The one form of a log line, for all our processes and for granian:

    2026-11-27T03:26:07.123Z INFO store[4711] paychan.store: store 1f... of network test ready at unix:...

Time in UTC, level, process and its id, logger, message; on standard error, one line for each record. With `form = "json"` each is
an object with the same parts: time, level, process, pid, logger, message. Where several systems are in one run, each process has
its instance's name before its own, `live/store[4711]`. No request is ever logged: a payment in it is worth
money.

Warnings of one kind that come in masses, as strangers could cause them, are written for a while and then counted.
"""

import json
import logging
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .printing import say

GRANIAN = "_granian"
"""granian's own logger, of its Python and of its Rust."""

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FORMS = ("text", "json")

ALIKE_MAX, ALIKE_SECONDS = 100, 10.0
"""So many warnings of one kind are written in so many seconds; how many more there were is said afterwards."""

KINDS_MAX = 1000
"""Kinds of warnings that are counted: a kind is a text in our code, so there are fewer."""


@dataclass(frozen=True)
class LogConfig:
    """level: one of LEVELS' names, of the least that is written. form: one of FORMS. instance: which of several systems in one run
    this is, empty if there is one."""

    level: str = "info"
    form: str = "text"
    instance: str = ""

    def named(self, process: str) -> str:
        """Return what a process is called in the log."""
        return f"{self.instance}/{process}" if self.instance else process


class LineFormatter(logging.Formatter):
    """process: supervisor, signer, store, server (granian's main process) or worker."""

    def __init__(self, process: str) -> None:
        super().__init__("%(message)s")
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        where = f"{self._process}[{record.process}] {record.name.removeprefix('_')}"
        return f"{moment}.{int(record.msecs):03}Z {record.levelname} {where}: {one_line(super().format(record))}"


class JsonFormatter(LineFormatter):
    """The same as an object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        parts = {
            "time": f"{moment}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "process": self._process,
            "pid": record.process,
            "logger": record.name.removeprefix("_"),
            "message": one_line(logging.Formatter.format(self, record)),
        }
        return json.dumps(parts)


FORMATTERS = {"text": LineFormatter, "json": JsonFormatter}


class Masses:
    """Counts warnings by kind. `clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str], list[float]] = {}  # logger and text -> when its time began, how many there were

    def takes(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be written."""
        if record.levelno != logging.WARNING:
            return True
        kind, now = (record.name, str(record.msg)), self._clock()
        began, count = self._seen.get(kind, (now, 0))
        if count < ALIKE_MAX and now - began >= ALIKE_SECONDS:
            began, count = now, 0
        if kind in self._seen or len(self._seen) < KINDS_MAX:
            self._seen[kind] = [began, count + 1]
        return count < ALIKE_MAX

    def left_out(self) -> list[tuple[str, str]]:
        """Return logger and text of what is to be said now of the kinds whose time is over and of which some were left out."""
        now = self._clock()
        over = {kind: seen for kind, seen in self._seen.items() if now - seen[0] >= ALIKE_SECONDS}
        for kind in over:
            del self._seen[kind]
        return [
            (name, f"{int(count) - ALIKE_MAX} more were left out like: {text}")
            for (name, text), (_, count) in over.items()
            if count > ALIKE_MAX
        ]


class StderrHandler(logging.Handler):
    """Writes to standard error; what cannot be written is lost. A record that cannot be formatted is a bug, and no more."""

    def __init__(self) -> None:
        super().__init__()
        self._masses = Masses()

    def emit(self, record: logging.LogRecord) -> None:
        takes = self._masses.takes(record)
        for name, text in self._masses.left_out():
            self._write(logging.LogRecord(name, logging.WARNING, "", 0, text, (), None))
        if takes:
            self._write(record)

    def _write(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:
            record.msg, record.args, record.exc_info = f"a record that cannot be shown: {type(error).__name__}", (), None
            line = self.format(record)
        say(line)


def one_line(text: str) -> str:
    """Return a text, such as a traceback or another program's message, as one line without control characters."""
    line = " | ".join(part.strip() for part in text.splitlines() if part.strip())
    return "".join(symbol if symbol.isprintable() else symbol.encode("unicode_escape").decode() for symbol in line)


def set_up(process: str, config: LogConfig = LogConfig()) -> None:
    """Have everything that is logged in this process, granian's and Python's own warnings too, go to standard error. It may be
    called again, once the configuration is read."""
    handler = StderrHandler()
    handler.setFormatter(FORMATTERS[config.form](config.named(process)))
    for logger in (logging.getLogger(), logging.getLogger(GRANIAN)):
        logger.handlers[:] = [handler]
        logger.setLevel(LEVELS[config.level])
    logging.captureWarnings(True)
    sys.excepthook = _on_uncaught
    sys.unraisablehook = lambda found: _on_uncaught(found.exc_type, found.exc_value, found.exc_traceback)
    threading.excepthook = lambda found: _on_uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def silence() -> None:
    """Have nothing logged in a command: its result and its last words are all that it prints."""
    logging.getLogger().addHandler(logging.NullHandler())


def granian_config(process: str, config: LogConfig = LogConfig()) -> dict[str, Any]:
    """Return what granian applies in its processes: the same, until `set_up` is called there."""
    return {
        "formatters": {"line": {"()": FORMATTERS[config.form], "process": config.named(process)}},
        "handlers": {"stderr": {"()": StderrHandler, "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": config.level.upper()},
        "loggers": {GRANIAN: {"handlers": ["stderr"], "level": config.level.upper(), "propagate": False}},
    }


def _on_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("paychan").critical("uncaught", exc_info=(kind, error or kind(), trace))
