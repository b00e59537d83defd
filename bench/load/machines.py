"""Two machines of a cluster, each with one worker, on two addresses of this one: what is forwarded goes over TLS."""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from bench.load.failure import Failed, await_
from bench.load.payers import Payer
from bench.load.processes import Door, Instance
from paychan.cli.certificates import DAYS, Machine, make_certificates
from tests.certificates import ALPHA, BETA
from tests.machines import section

NO_OPENSSL = "no openssl command: nothing is forwarded over TLS"


def is_possible() -> bool:
    """Return whether there can be certificates here."""
    return shutil.which("openssl") is not None


def _knows_both(instance: Instance) -> bool:
    return instance.readyz().get("cluster", {}).get("workers") == 2


class _Beside(Instance):
    """The second machine: a server alone, with the first one's store and signer."""

    def __init__(self, directory: Path, first: Instance, certificates: Path) -> None:
        super().__init__(directory, server_changes=section(certificates, "beta", BETA, "127.0.0.1"))
        run = directory / "state" / "run"
        run.mkdir(mode=0o700, parents=True)
        for name in ("store.sock", "signer.sock"):
            (run / name).symlink_to(first.directory / "state" / "run" / name)

    def _is_ready(self) -> bool:
        return self._live() and _knows_both(self)


class TwoMachines:
    """Both. Channels are opened at the first."""

    def __init__(self, directory: Path) -> None:
        certificates = directory / "certificates"
        make_certificates(certificates, [Machine((host,)) for host in (ALPHA, BETA)], time.time(), DAYS, False)
        self.first = Instance(directory / "alpha", server_changes=section(certificates, "alpha", ALPHA, "127.0.0.1"))
        self._second = _Beside(directory / "beta", self.first, certificates)

    def start(self) -> None:
        self.first.start()
        self._second.start_server()
        await_(lambda: _knows_both(self.first), 60, "the first machine's knowledge of the second")

    def stop(self) -> None:
        self._second.stop()
        self.first.stop()

    def pids(self) -> dict[str, list[int]]:
        """Return the processes by the name under which a report counts them."""
        return {**self.first.pids(), "workers": [*self.first.worker_pids(), *self._second.worker_pids()]}

    def open(self, payers: Sequence[Payer]) -> list[Door]:
        """Open the channels; return for each the own port of the worker that does not own it."""
        owners = self.first.open(list(payers))
        both = set(owners)
        if len(both) != 2:
            raise Failed(f"the channels of two machines are served at {len(both)} ports of their own")
        return [(both - {owner}).pop() for owner in owners]
