"""A real Prometheus that reads a system's metrics, with the shipped alerts, whose times are shortened so that tests can wait.

A rule's minute becomes `minute` seconds: in how long a condition must hold (`for:`, no longer than five of them) and in the windows
that it looks at (`[5m]`, no longer than fifteen). WAITED has what is shortened otherwise. Everything else stands as it is shipped:
all thresholds, but for two that are times.
"""

import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.system import ROOT, Client, wait_until

PROGRAM = shutil.which("prometheus")
needed = pytest.mark.skipif(PROGRAM is None, reason="prometheus is not installed")
DEPLOY = ROOT / "deploy" / "prometheus"
RULES = (DEPLOY / "alerts.yml").read_text()
NAMES = tuple(re.findall(r"- alert: (\w+)", RULES))
"""Of all shipped alerts."""

FOR_MINUTES_MAX, WINDOW_MINUTES_MAX, WINDOW_SECONDS_MIN = 5, 15, 5
WAITED = {
    'phase=~"closing|signed"} > 900': 'phase=~"closing|signed"} > 10',
    '{phase="broadcast"} > 6 * 3600': '{phase="broadcast"} > 20',
    "paychan_webhook_failing_seconds > 6 * 3600": "paychan_webhook_failing_seconds > 20",
    "paychan_process_starts_total[15m]": "paychan_process_starts_total[120s]",
}
"""How long a settlement stands still and a webhook fails; and in which time processes start too often: they need theirs for it."""

_MINUTES = {"m": 1, "h": 60}


def shortened(minute: float, rules: str = RULES) -> str:
    """Return the alerts with a minute of so many seconds."""

    def seconds(match: re.Match[str], most: int, least: int) -> int:
        return max(least, round(min(int(match[1]) * _MINUTES[match[2]], most) * minute))

    for shipped, waited in WAITED.items():
        assert rules.count(shipped) == 1, shipped
        rules = rules.replace(shipped, waited)
    rules = re.sub(r"(?<=for: )(\d+)([mh])$", lambda match: f"{seconds(match, FOR_MINUTES_MAX, 0)}s", rules, flags=re.M)
    return re.sub(r"\[(\d+)([mh])\]", lambda match: f"[{seconds(match, WINDOW_MINUTES_MAX, WINDOW_SECONDS_MIN)}s]", rules)


class Prometheus:
    """A running one. Use `prometheus(...)`."""

    def __init__(self, port: int) -> None:
        self._port = port

    def _get(self, path: str) -> dict:
        """Return what it answers, waiting for it: no answer must not be taken for nothing."""
        found: list[dict] = []

        def ask() -> bool:
            client = Client(self._port)
            with suppress(OSError):
                answer = client.request("GET", path)
                if answer.status == 200:
                    found.append(answer.json["data"])
            client.close()
            return bool(found)

        wait_until(ask, 20, "an answer of Prometheus")
        return found[0]

    def _query(self, query: str) -> list[dict]:
        return self._get(f"/api/v1/query?query={urllib.parse.quote(query)}").get("result", [])

    def value(self, query: str) -> float | None:
        found = self._query(query)
        return float(found[0]["value"][1]) if found else None

    def value_is(self, query: str, wanted: float) -> None:
        """Wait until a query gives this."""
        _wait(lambda: self.value(query) == wanted, 20, lambda: f"{query} is {self.value(query)}, not {wanted}")

    def firing(self, *, or_pending: bool = False) -> set[str]:
        """Return the names of the alerts that fire now; or_pending: and of those whose condition holds, not yet for long enough."""
        found = self._get("/api/v1/alerts").get("alerts", ())
        return {alert["labels"]["alertname"] for alert in found if or_pending or alert["state"] == "firing"}

    def fired(self, seconds: float) -> set[str]:
        """Return the names of the alerts that fired at any time within the last seconds."""
        seen = f'max_over_time(ALERTS{{alertstate="firing"}}[{max(3, int(seconds))}s])'
        return {row["metric"]["alertname"] for row in self._query(f"count by (alertname) ({seen})")}

    def fires(self, *names: str, seconds: float = 20.0) -> None:
        """Wait until all of these fire."""
        _wait(lambda: set(names) <= self.firing(), seconds, lambda: f"{_list(names)} should fire, not only {_list(self.firing())}")

    def is_quiet(self, *names: str, seconds: float = 20.0, nor_pending: bool = False) -> None:
        """Wait until none of these fires any more, nor is about to; without a name, none at all."""
        awaited = set(names or NAMES)

        def left() -> set[str]:
            return self.firing(or_pending=nor_pending) & awaited

        _wait(lambda: not left(), seconds, lambda: f"{_list(left())} should not fire any more")

    def stays_quiet(self, seconds: float, but: Iterable[str] = ()) -> None:
        """Look on for so long. AssertionError if an alert fires (`but` these): nothing is wrong."""
        time.sleep(seconds)
        false = self.fired(seconds) - set(but)
        assert not false, f"nothing is wrong, and {_list(false)} fired"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"


def _wait(is_true: Callable[[], object], seconds: float, problem: Callable[[], str]) -> None:
    """`wait_until`, with what is wrong in the end instead of what was waited for."""
    try:
        wait_until(is_true, seconds, "")
    except AssertionError:
        raise AssertionError(problem()) from None


@contextmanager
def prometheus(directory: Path, target: int, rules: str) -> Iterator[Prometheus]:
    """Run one on a new directory, with these rules; target: the port that it reads each second."""
    assert PROGRAM is not None
    directory.mkdir(exist_ok=True)
    (directory / "alerts.yml").write_text(rules)
    config = (DEPLOY / "prometheus.yml").read_text().replace("15s", "1s").replace("127.0.0.1:9108", f"127.0.0.1:{target}")
    (directory / "prometheus.yml").write_text(config)
    port = free_port()
    arguments = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data", "--log.level=error"]
    process = subprocess.Popen([PROGRAM, *arguments, f"--web.listen-address=127.0.0.1:{port}"], cwd=directory)
    try:
        found = Prometheus(port)
        wait_until(lambda: found.value('up{job="paychan"}') == 1, 20, "the first scrape")
        yield found
    finally:
        process.terminate()
        process.wait(30)
