"""What a run of the tests tells: failures at once, and at its end, for ./runTests.sh, a line, the files that took longest, and each
reason for a skipped test.

Where several processes share a run (`--dist loadfile --no-loadscope-reorder`, as ./runTests.sh has it), the files that take longest
begin: none of them is what all wait for in the end.

`@pytest.mark.privileged("why")` marks a test that only root can run: for others it is skipped, and says why. `.ci/run` runs the
suite as a plain user, and these as root (`-m privileged`).
"""

import gc
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

OURS = ("PYTHONPATH", "PYTHONSAFEPATH")
"""Set by ./runTests.sh. Other variables of Python that a machine happens to have (unbuffered streams, no bytecode) are kept from
the processes that tests start: they hide what everybody else meets."""

LONGEST = (
    *("process/test_store_postgres", "packages/test_packages", "clients_js/test_js_package", "fuzz/test_fuzz"),
    *("unit/server/doors/test_peer_port", "process/test_setup", "process/test_patroni"),
    *("process/test_store_migrate", "process/test_signer_postgres", "process/test_fleet"),
    *("campaign/test_stores_campaign", "campaign/test_database", "campaign/test_sales"),
    *("process/test_demo", "clients_js/test_page", "process/test_machines", "process/test_machines_cut"),
    *("process/test_paying_kills", "process/test_gateway_kills", "process/test_supervisor", "process/test_kills"),
    *("process/test_state_machine", "process/test_gateway_proxy", "bench/test_load_run", "bench/test_engines"),
    *("bench/test_peers", "simulation/test_settle", "simulation/test_world", "power/test_power", "defects/test_defects"),
)
"""Files of tests/ and of bench/, about the longest first: a run's end tells which they are."""

HANGS_SECONDS = 600
"""After which no test of this suite can still be at work, however busy the machine."""

WHOLE_SYSTEMS = ("process", "client", "chain", "hostile", "campaign", "clients_js")
"""Folders of tests/ whose other files mostly wait for processes; after them come those that compute."""


def pytest_configure(config):
    for name in [name for name in os.environ if name.startswith(("PYTHON", "PYTEST_XDIST")) and name not in OURS]:
        del os.environ[name]
    for number, handler in ((signal.SIGHUP, _stay), (signal.SIGINT, signal.default_int_handler)):
        # Under nohup, or in a shell's background: what is ignored is inherited, and no shell below us could catch it.
        if signal.getsignal(number) == signal.SIG_IGN and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)
    # How long an example takes is the machine's matter.
    hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
    hypothesis.settings.load_profile("busy")
    config.addinivalue_line("markers", "privileged(why): needs root, and says what for")
    config.stash[_STARTED] = time.monotonic()


def _stay(*_):
    """Go on after SIGHUP, and leave the signal as a terminal has it to the processes that tests start."""


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Ten thousand tests stay until the end: what looks for garbage need not look at them while they are collected, nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        items.sort(key=_turn)
    if os.geteuid() == 0:
        return
    for item in items:
        mark = item.get_closest_marker("privileged")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs root: {mark.args[0]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """End a test that hangs, so that the run tells of it; it says where."""
    if threading.current_thread() is not threading.main_thread():
        return (yield)
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.alarm(HANGS_SECONDS)
    try:
        return (yield)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _hangs(*_):
    raise TimeoutError(f"this test has not ended after {HANGS_SECONDS} s")


def _turn(item):
    """Return what a file's place in the order goes by."""
    file, _, _ = item.nodeid.partition(".py::")
    name = file.removeprefix("tests/")
    if name in LONGEST:
        return 0, LONGEST.index(name)
    return 1, name.partition("/")[0] not in WHOLE_SYSTEMS


def pytest_runtest_logreport(report):
    """Tell of a failure when it happens: a run takes minutes, and its details come last."""
    if report.failed:
        print(f"\nFAILED {report.nodeid} ({report.when})", flush=True)


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    report = os.environ.get("PAYCHAN_TEST_REPORT")
    if not report or hasattr(config, "workerinput"):
        return
    stats = terminalreporter.stats
    counts = {name: len(stats.get(name, ())) for name in ("passed", "failed", "error", "skipped")}
    seconds = int(time.monotonic() - config.stash[_STARTED])
    lines = [f"{', '.join(f'{count} {name}' for name, count in counts.items() if count)} in {seconds} s"]
    lines += [f"    longest: {', '.join(f'{file} {seconds:.0f} s' for file, seconds in _longest(stats))}"]
    reasons = Counter(_reason(skipped) for skipped in stats.get("skipped", ()))
    lines += [f"    {count} skipped: {reason}" for reason, count in sorted(reasons.items())]
    failed = [item.nodeid for name in ("failed", "error") for item in stats.get(name, ())]
    lines += [f"    FAILED {name}" for name in failed]
    Path(report).write_text("\n".join(lines) + "\n")


def _longest(stats, count=12):
    """Return (file, seconds) of the files that took longest, preparing and clearing up included."""
    taken = Counter()
    for reports in stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                taken[report.nodeid.partition("::")[0]] += report.duration
    return taken.most_common(count)


def _reason(report):
    *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (str(report.longrepr),)
    return reason.removeprefix("Skipped: ")


_STARTED = pytest.StashKey[float]()
