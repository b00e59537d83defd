"""The way of granian's requests: through a scheduler of ours, in batches, without a coroutine for each payment; or the public way.

granian has no public interface for the first. What is replaced are two functions of `granian._futures`, in the worker's process,
before granian makes its scheduler with one of them: `_cbsched_aioschedule` (tasks of asyncio) or `_cbsched_schedule` (its own).
Either returns the function that granian calls, in a thread of its own that holds the interpreter's lock, with the *watcher* of each
new request. What the door relies on:

- all that `granian._futures` says: what the two are given, that `cb(watcher)` makes the coroutine that runs a request, that `run`
  executes it, or a task that the watcher is told of, and that a watcher has `scope` and `proto`, the public objects of RSGI. The
  module is nothing but this, so the fingerprint of its source decides, whatever the version. It is the same from 2.5.7 to 2.8.9;
- of the compiled half (granian's src/callbacks.rs and src/rsgi/callbacks.rs), which that source calls: that a request which
  `proto.response_bytes` has answered is over. `watcher.done()` would answer 500 where nothing was, and does nothing else.
  No source here can tell; tests/process/test_granian_door.py does, with the granian that is installed.

Whatever is not as expected leaves granian as it was: requests come through `App.__rsgi__`, and the log and /readyz say why.
"""

import ast
import asyncio
import hashlib
import inspect
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import granian

from ..._fast.rsgi import RsgiDoor

KNOWN_SOURCES = frozenset({"1698ce8b59e5c0c802e23870b766e8f44c49e827ed3d64e1b8d44de6394c1c3c"})
"""Fingerprints of the `granian._futures` that the door was tested with. Before one is added, read what has changed, there and in
the compiled half, and run tests/process/test_granian_door.py and test_conformance_rules.py with it."""

OWN = "own"
COST = "each payment costs about a fifth more CPU"
NOT_ASKED = "granian has not made its scheduler in the way that is known"

ASKED_WITHIN_SECONDS = 1.0
"""After this time the worker serves: granian has made its scheduler, with us or without."""

log = logging.getLogger("paychan.server")

Run = Callable[[Any], object]
"""What takes the watcher of a request and has the request run."""


def fingerprint(module: ModuleType) -> str:
    """Return the SHA-256 of a module's source, but for its comments and layout. Raises OSError, TypeError: it cannot be read."""
    return hashlib.sha256(ast.unparse(ast.parse(inspect.getsource(module))).encode()).hexdigest()


class GranianDoor:
    """One worker's. `way`: "own", or "public: " and why."""

    def __init__(self, loop: asyncio.AbstractEventLoop, application: Any, make: Callable[[Run], RsgiDoor]) -> None:
        """Replace what granian is about to make its scheduler with, if it is what we know. Call it before granian serves.

        make(usual): returns the compiled door, given what runs a request the usual way.
        """
        self._loop, self._application, self._make = loop, application, make
        self._is_asked = False
        self.way = f"public: {NOT_ASKED}"
        try:
            from granian import _futures as futures

            is_known = fingerprint(futures) in KNOWN_SOURCES
        except (ImportError, OSError, TypeError, SyntaxError) as error:
            self._stay_public(f"how granian {granian.__version__} schedules requests cannot be read: {error}")
            return
        if not is_known:
            self._stay_public(f"how granian {granian.__version__} schedules requests is not what was tested")
            return
        self._usual: Callable[..., Run] = futures._cbsched_schedule
        self._usual_aio: Callable[..., Run] = futures._cbsched_aioschedule
        futures._cbsched_schedule, futures._cbsched_aioschedule = self._schedule, self._schedule_aio
        loop.call_later(ASKED_WITHIN_SECONDS, self._tell_if_not_asked)

    def _schedule(self, loop: Any, context: Any, run: Run, cb: Callable[[Any], Any]) -> Run:
        """In the place of granian's: return what takes the watcher of each new request, in granian's thread."""
        return self._take_over(loop, cb, lambda watcher: run(cb(watcher))) or self._usual(loop, context, run, cb)

    def _schedule_aio(self, loop: Any, context: Any, cb: Callable[[Any], Any]) -> Run:
        def run(watcher: Any) -> None:
            watcher.taskref(loop.create_task(cb(watcher)))

        return self._take_over(loop, cb, run) or self._usual_aio(loop, context, cb)

    def _take_over(self, loop: Any, cb: Callable[[Any], Any], usual: Run) -> Run | None:
        self._is_asked = True
        if loop is not self._loop:
            self._stay_public("granian serves on another event loop")
            return None
        if not _serves(cb, self._application):
            self._stay_public("granian wraps the application, as it does to write an access log")
            return None
        self.way = OWN
        return self._make(usual).schedule

    def _tell_if_not_asked(self) -> None:
        if not self._is_asked:
            self._stay_public(NOT_ASKED)

    def _stay_public(self, why: str) -> None:
        self.way = f"public: {why}"
        log.warning("requests come through granian's public interface, so %s: %s", COST, why)


def _serves(cb: Any, application: Any) -> bool:
    """Return whether what makes a request's coroutine calls the application itself."""
    cells = getattr(cb, "__closure__", None) or ()
    return any(cell.cell_contents == application.__rsgi__ for cell in cells)
