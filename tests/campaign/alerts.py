"""The campaign that makes each shipped alert fire by what it is for: `python -m tests.campaign.alerts [--only NAME,...]`.

A real Prometheus reads real systems under load, with deploy/prometheus/alerts.yml; tests/prometheus.py says which of its times are
shortened. While nothing is wrong no alert may fire. Each fault (alert_faults.py, alert_chain.py) is made for real; its alerts must
fire, no alert may that is not true of it, and once it is mended all must cease. `--only`: alerts, or parts of faults' names.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.campaign import alert_chain, alert_faults
from tests.campaign.alert_scenes import MINUTE_SECONDS, SCENES, Fault, Scene
from tests.prometheus import NAMES, PROGRAM, RULES, Prometheus, prometheus, shortened

FAULTS = (*alert_faults.FAULTS, *alert_chain.FAULTS)
QUIET_SECONDS = 20.0
"""Of load without a fault, before the first one: longer than any alert's condition must hold."""

PATIENCE_SECONDS = 40.0
"""For an alert to fire or to cease; `wait_until` is five times as patient on a busy machine."""


BUSY = ("PaychanSlow", "PaychanDiskSlow")
BUSY_LOAD = 2.0
"""From so many processes that want to run for each processor on, these alerts may be true whatever the fault."""


def true_anyway() -> set[str]:
    """Return the alerts that a busy machine explains."""
    return set(BUSY) if os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1) else set()


class Trial:
    """Makes faults in one scene and judges what a Prometheus says of each. patience: seconds."""

    def __init__(self, scene: Scene, prom: Prometheus, patience: float = PATIENCE_SECONDS) -> None:
        self._scene, self._prom, self._patience = scene, prom, patience

    def is_well(self, seconds: float = QUIET_SECONDS) -> None:
        """AssertionError if an alert fires while the system is under load and nothing is wrong."""
        self._is_quiet(nor_pending=True)
        before = self._scene.load.answered
        self._prom.stays_quiet(seconds, but=true_anyway())
        assert self._scene.load.answered > before, "nothing was paid"

    def prove(self, fault: Fault) -> tuple[float, float]:
        """Make a fault and mend it; return the seconds until its alerts fired, and until none did any more. AssertionError: one of
        its alerts did not fire or cease, or another one fired."""
        if not fault.is_first:
            self._is_quiet(nor_pending=True)
        began = time.monotonic()
        with fault.make(self._scene):
            made = time.monotonic()
            self._prom.fires(*fault.fires, seconds=self._patience)
            fired = time.monotonic()
        mended = time.monotonic()
        self._is_quiet(*fault.fires)
        ceased = time.monotonic()
        strange = self._prom.fired(ceased - began - 1) - {*fault.fires, *fault.also} - true_anyway()
        assert fault.is_first or not strange, f"{', '.join(sorted(strange))} fired besides"
        return fired - made, ceased - mended

    def _is_quiet(self, *names: str, nor_pending: bool = False) -> None:
        """Wait until nothing fires, but for what a busy machine explains; these neither. nor_pending: nor will fire for what was
        before, which is not to be taken for what comes next."""
        awaited = set(NAMES) - true_anyway() | set(names)
        self._prom.is_quiet(*awaited, seconds=self._patience, nor_pending=nor_pending)


def chosen(only: str) -> list[Fault]:
    """Return the faults for alerts or parts of names, apart by commas; empty: all."""
    wanted = [word for word in only.split(",") if word]
    return [fault for fault in FAULTS if not wanted or any(word in fault.fires or word in fault.name for word in wanted)]


def run(place: Path, faults: list[Fault], rules: str, say: Callable[[str], None]) -> tuple[set[str], list[str]]:
    """Make these faults, those of each scene one after the other; return the alerts that were proved, and what went wrong."""
    proved, problems = set[str](), list[str]()
    names = sorted({fault.scene for fault in faults})
    with ThreadPoolExecutor(len(names)) as pool:
        for own, wrong in pool.map(lambda name: _run_scene(place / name, name, faults, rules, say), names):
            proved |= own
            problems += wrong
    return proved, problems


def _run_scene(place: Path, name: str, faults: list[Fault], rules: str, say: Callable[[str], None]) -> tuple[set[str], list[str]]:
    own = [fault for fault in FAULTS if fault.scene == name and (fault in faults or fault.is_first)]
    own.sort(key=lambda fault: not fault.is_first)
    proved, problems = set[str](), list[str]()
    place.mkdir()
    with SCENES[name](place) as scene, prometheus(place / "prometheus", scene.scraper.port, rules) as prom:
        trial = Trial(scene, prom)
        for number, fault in enumerate(own):
            try:
                if number == own[0].is_first:
                    trial.is_well()
                fires, ceases = trial.prove(fault)
                proved |= set(fault.fires)
                say(f"{fault.name}: {', '.join(fault.fires)} after {fires:.0f} s, and ceased {ceases:.0f} s after the mend")
            except (AssertionError, OSError) as error:
                problems.append(f"{fault.name}: {error}")
                say(f"PROBLEM {problems[-1]}")
    return proved, problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAME,...")
    parser.add_argument("--rules", type=Path, help="other rules than those that are shipped: to see a broken one found")
    arguments = parser.parse_args()
    faults = chosen(arguments.only)
    if PROGRAM is None or not faults:
        parser.error("prometheus is not installed" if PROGRAM is None else f"--only: there is no such fault: {arguments.only}")
    rules = shortened(MINUTE_SECONDS, arguments.rules.read_text() if arguments.rules else RULES)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="paychan-alerts-") as place:
        proved, problems = run(Path(place), faults, rules, lambda text: print(text, flush=True))
    missing = set(NAMES) - proved if not arguments.only else set()
    print(f"{len(proved)} of {len(NAMES)} alerts fired by {len(faults)} faults, and ceased, in {time.monotonic() - began:.0f} s")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors; {len(problems)} problems")
    if missing:
        print(f"not proved: {', '.join(sorted(missing))}")
    return int(bool(problems or missing))


if __name__ == "__main__":
    sys.exit(main())
