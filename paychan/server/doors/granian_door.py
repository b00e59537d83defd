"""A scheduler of our own in granian: payments come to the intake in batches, without a coroutine for each.

This is a private interface of granian. It is used only with the versions that it was tested with, and only if everything it needs
is there; otherwise requests come the public way, through `App.__rsgi__`, at a somewhat higher price.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import granian

from ..._fast.rsgi import RsgiDoor

TESTED_VERSIONS = ("2.8.7",)

log = logging.getLogger("paychan.server")


def install(loop: asyncio.AbstractEventLoop, application: Any, door_of: Any) -> bool:
    """Have granian's worker, which is about to make its scheduler, make ours; return whether that worked.

    door_of(usual): returns the RsgiDoor, given what runs a request the usual way. Called in the worker process, before it serves.
    """
    if granian.__version__ not in TESTED_VERSIONS:
        log.info("granian %s is not one of %s: its public interface is used", granian.__version__, TESTED_VERSIONS)
        return False
    try:
        from granian import _futures
        from granian.server import mp

        make_usual, make_task = mp._new_cbscheduler, _futures._CBSchedulerTask
        base, enter, leave = _futures._CBScheduler, _futures._aio_taskenter, _futures._aio_taskleave
    except (ImportError, AttributeError) as error:
        log.warning("granian's scheduler was not found, its public interface is used: %s", error)
        return False

    class Scheduler(base):  # type: ignore[misc, valid-type]
        """granian's own, but for what happens to a new request."""

        def __init__(self, *_: Any) -> None:
            super(base, self).__init__()  # not granian's, which would install its own `_schedule_fn`

    def make(its_loop: Any, coroutine_of: Any, impl_asyncio: bool = False) -> Any:
        if its_loop is not loop or not _serves(coroutine_of, application):  # with an access log granian calls a wrapper
            return make_usual(its_loop, coroutine_of, impl_asyncio)
        task = None if impl_asyncio else make_task()
        scheduler = Scheduler(loop, coroutine_of, task, partial(enter, loop), partial(leave, loop))
        start = _start_task(loop) if impl_asyncio else lambda coroutine, _: scheduler._run(coroutine)
        door: RsgiDoor = door_of(lambda watcher: start(coroutine_of(watcher), watcher))
        scheduler._schedule_fn = door.schedule
        return scheduler

    mp._new_cbscheduler = make
    return True


def _start_task(loop: asyncio.AbstractEventLoop) -> Callable[[Coroutine[Any, Any, None], Any], None]:
    def start(coroutine: Coroutine[Any, Any, None], watcher: Any) -> None:
        watcher.taskref(loop.create_task(coroutine))

    return start


def _serves(coroutine_of: Any, application: Any) -> bool:
    """Return whether granian calls the application itself, not a wrapper."""
    cells = getattr(coroutine_of, "__closure__", None) or ()
    return any(cell.cell_contents == application.__rsgi__ for cell in cells)
