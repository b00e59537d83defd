"""The one form of a log line, for all our processes and for granian:

    2026-11-27T03:26:07.123Z INFO store[4711] paychan.store: store 1f... of network test ready at unix:...

Time in UTC, level, process and its id, logger, message; on standard error, one line for each record. No request is ever logged: a
payment in it is worth money.
"""

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any

from .printing import say

GRANIAN = "_granian"
"""granian's own logger, of its Python and of its Rust."""


class LineFormatter(logging.Formatter):
    """process: supervisor, signer, store, server (granian's main process) or worker."""

    def __init__(self, process: str) -> None:
        super().__init__("%(message)s")
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        where = f"{self._process}[{record.process}] {record.name.removeprefix('_')}"
        return f"{moment}.{int(record.msecs):03}Z {record.levelname} {where}: {one_line(super().format(record))}"


class StderrHandler(logging.Handler):
    """Writes to standard error; what cannot be written is lost. A record that cannot be formatted is a bug, and no more."""

    def emit(self, record: logging.LogRecord) -> None:
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


def set_up(process: str) -> None:
    """Have everything that is logged in this process, granian's and Python's own warnings too, go to standard error."""
    handler = StderrHandler()
    handler.setFormatter(LineFormatter(process))
    for logger in (logging.getLogger(), logging.getLogger(GRANIAN)):
        logger.handlers[:] = [handler]
        logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _on_uncaught
    sys.unraisablehook = lambda found: _on_uncaught(found.exc_type, found.exc_value, found.exc_traceback)
    threading.excepthook = lambda found: _on_uncaught(found.exc_type, found.exc_value, found.exc_traceback)


def silence() -> None:
    """Have nothing logged in a command: its result and its last words are all that it prints."""
    logging.getLogger().addHandler(logging.NullHandler())


def granian_config(process: str) -> dict[str, Any]:
    """Return what granian applies in its processes: the same, until `set_up` is called there."""
    return {
        "formatters": {"line": {"()": LineFormatter, "process": process}},
        "handlers": {"stderr": {"()": StderrHandler, "formatter": "line"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {GRANIAN: {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
    }


def _on_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("paychan").critical("uncaught", exc_info=(kind, error or kind(), trace))
