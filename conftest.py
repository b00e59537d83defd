"""What a run of the tests tells: failures at once, and at its end, for ./runTests.sh, a line and each reason for a skipped test.

`@pytest.mark.privileged("why")` marks a test that only root can run: for others it is skipped, and says why. `.ci/run` runs the
suite as a plain user, and these as root (`-m privileged`).
"""

import os
import time
from collections import Counter
from pathlib import Path

import pytest

OURS = ("PYTHONPATH", "PYTHONSAFEPATH")
"""Set by ./runTests.sh. Other variables of Python that a machine happens to have (unbuffered streams, no bytecode) are kept from
the processes that tests start: they hide what everybody else meets."""


def pytest_configure(config):
    for name in [name for name in os.environ if name.startswith(("PYTHON", "PYTEST_XDIST")) and name not in OURS]:
        del os.environ[name]
    config.addinivalue_line("markers", "privileged(why): needs root, and says what for")
    config.stash[_STARTED] = time.monotonic()


def pytest_collection_modifyitems(items):
    if os.geteuid() == 0:
        return
    for item in items:
        mark = item.get_closest_marker("privileged")
        if mark is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs root: {mark.args[0]}"))


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
    reasons = Counter(_reason(skipped) for skipped in stats.get("skipped", ()))
    lines += [f"    {count} skipped: {reason}" for reason, count in sorted(reasons.items())]
    failed = [item.nodeid for name in ("failed", "error") for item in stats.get(name, ())]
    lines += [f"    FAILED {name}" for name in failed]
    Path(report).write_text("\n".join(lines) + "\n")


def _reason(report):
    *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else (str(report.longrepr),)
    return reason.removeprefix("Skipped: ")


_STARTED = pytest.StashKey[float]()
