"""`paychan run DIR DIR...`: several systems in one run, each with network, key, state and ports of its own.

Each has a supervisor as if it were started alone; this process starts those, again if one dies, and hands signals on to all.
None of them waits for another, nor ends with it. One whose configuration must not run is left out, which is said.
"""

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

from .core.errors import ConfigError
from .exits import EXIT_BAD_CONFIG
from .hangup import Wishes
from .notify import Manager
from .printing import say
from .ready import ready_state
from .settings.directory import read_directory
from .settings.instances import FOR_ONE, Instance, conflicts, name_of, trouble_with_names
from .settings.load import INSTANCE_VARIABLE
from .supervisor import POLL_SECONDS, STOP_SECONDS_MAX, Child

LOOK_SECONDS = 1.0
"""Between two looks whether all are ready, which a service manager waits for."""

STOP_ALL_SECONDS_MAX = 4 * STOP_SECONDS_MAX
"""A supervisor stops four processes, one after the other."""

log = logging.getLogger("paychan.instances")


def read_instances(directories: Sequence[Path]) -> tuple[list[Instance], list[list[str]], list[str]]:
    """Return what is in some directories, what is wrong with each, and what they share that each must have for itself."""
    found = [read_directory(directory) for directory in directories]
    instances = [
        Instance(name_of(directory), one.server, one.store, one.signer) for directory, one in zip(directories, found, strict=True)
    ]
    variables = [f"{name}: is set, and would hold for all of them" for name in FOR_ONE if os.environ.get(name)]
    together = variables + trouble_with_names(directories) + conflicts(instances)
    return instances, [one.problems for one in found], together


class Instances:
    """The supervisors of some directories."""

    def __init__(self, directories: Sequence[Path]) -> None:
        """Raises ConfigError if two share what they must not. From now on a SIGHUP does not end us."""
        self._wishes, self._manager = Wishes(), Manager()
        instances, _, together = read_instances(directories)
        if together:
            raise ConfigError(*together)
        self._servers = {one.name: one.server for one in instances if one.server is not None}
        self._children = {
            one.name: Child(one.name, "paychan", "run", str(directory), env={INSTANCE_VARIABLE: one.name})
            for one, directory in zip(instances, directories, strict=True)
        }
        self._look_at = 0.0
        self._is_told = False

    def run(self) -> int:
        """Run until SIGINT or SIGTERM, or until none is left that may run; return the exit status."""
        self._wishes.hear_stops()
        try:
            while not self._wishes.is_stopping and self._children:
                self._tend()
                self._tell()
                time.sleep(POLL_SECONDS)
            return 0 if self._wishes.is_stopping else EXIT_BAD_CONFIG
        finally:
            self._manager.stopping()
            for child in self._children.values():
                child.ask_to_end()
            for child in self._children.values():
                child.stop(STOP_ALL_SECONDS_MAX)

    def _tend(self) -> None:
        """Start what does not run, leave out what must not, and have all reload if that was asked for."""
        for name, child in list(self._children.items()):
            if child.exit_status == EXIT_BAD_CONFIG and child.starts == 1:  # later it may wait for what a killed one left behind
                del self._children[name]
                say(f"paychan: {name} does not run: its configuration must not; the others go on")
            else:
                child.keep()
        if self._wishes.is_reload_wanted:
            self._wishes.is_reload_wanted = False
            for child in self._children.values():
                child.hang_up()

    def _tell(self) -> None:
        """Tell a service manager that this process lives, and once that all that may run are ready."""
        self._manager.alive()
        if not self._is_told and self._manager.is_there and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_SECONDS
            servers = [self._servers.get(name) for name in self._children]
            if all(server is not None and "server_pubkey" in ready_state(server) for server in servers):
                self._is_told = True
                self._manager.ready(f"{len(self._children)} systems: {', '.join(self._children)}")
