"""`python -m tests.variants run CONFIG_DIR`: `paychan run`, with one process set as PAYCHAN_TEST_VARIANT says, for `System`.

access log: granian wraps the application, so that payments come the public way, one coroutine for each.
other source: nor is our scheduler used if granian's source is another one than was tested.
newer frames: workers say the next version of what they say to those of other machines.
little time: a thousandth of a worker's time is for verifications that fail, so that few of them use it up.
few at once: granian serves few connections at a time; nothing else is changed.
rust tasks: granian's own tasks instead of asyncio's; payments come the private way.
short limits: the shipped settings, but the own ports' clients have little time and few connections.
small caches: the store's caches are full soon, so that what else grows in it can be seen.

The worker says, on standard error, when the first payment has come the public way.
"""

import functools
import os
import sys
from typing import Any

from granian.constants import TaskImpl

from paychan import supervisor
from paychan.__main__ import main as run_paychan
from paychan.server import serving as server
from paychan.server.doors import direct, granian_door, peer_port
from tests.system import VARIABLE, variant_module

OPTIONS: dict[str, dict[str, Any]] = {
    "access log": {"log_access": True},
    "other source": {},
    "few at once": {"backpressure": 8},
    "rust tasks": {"task_impl": TaskImpl.rust},
    "little time": {},
    "short limits": {},
    "newer frames": {},
}
CONNECTIONS_MAX = 8
"""With short limits."""

PUBLIC_WAY = "a payment came the public way"


def run_supervisor() -> int:
    usual = supervisor.Child

    def child(name: str, module: str, *rest: Any, **more: Any) -> supervisor.Child:
        return usual(name, variant_module(os.environ[VARIABLE], module), *rest, **more)

    supervisor.Child = child  # type: ignore[assignment, misc]
    return run_paychan()


def make() -> Any:
    """Return the application, which tells of payments that come the public way. granian calls this in each worker."""
    from paychan.server import worker
    from paychan.server.app import App, make_app  # not before: the module would hide the package's attribute `app`

    if os.environ[VARIABLE] == "little time":
        worker.ChannelTable = functools.partial(worker.ChannelTable, failing_per_mille=1)  # type: ignore[assignment, misc]

    usual = App.__rsgi__
    told = False

    async def rsgi(self: App, scope: Any, proto: Any) -> None:
        nonlocal told
        if scope.method == "PUT" and not told:
            told = True
            print(PUBLIC_WAY, file=sys.stderr, flush=True)
        await usual(self, scope, proto)

    App.__rsgi__ = rsgi  # type: ignore[method-assign]
    return make_app()


def run_server(variant: str) -> int:
    usual = server.Granian

    def granian(_: str, **options: Any) -> Any:
        return usual("tests.variants:make", factory=True, **options | OPTIONS[variant])

    server.Granian = granian  # type: ignore[assignment, misc]
    if variant == "other source":
        granian_door.KNOWN_SOURCES = frozenset()
    if variant == "newer frames":
        peer_port.VERSION += 1
    if variant == "short limits":
        direct.SWEEP_SECONDS, direct.SILENT_SWEEPS_MAX, direct.CONNECTIONS_MAX = 0.1, 5, CONNECTIONS_MAX
    return server.main()


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(run_supervisor())
    sys.exit(run_server(os.environ[VARIABLE]))
