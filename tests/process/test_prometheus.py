"""Aim: a real Prometheus reads a real system under load, its sums are the client's, and real faults make the alerts fire.

Method: prometheus, where it is installed, with the shipped alerts; only how long a condition must hold (`for:`) is taken out, for
tests have no minutes. A fault lasts because the supervisor is stopped meanwhile. deploy/prometheus/alerts_test.yml has the alerts
whose faults take hours, a chain or another machine.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from coincurve import PrivateKey

from paychan.core.sender import sign_payment
from tests.metrics import Scraper, listening, shows_all
from tests.system import ROOT, Client, System, free_port, processes, running, wait_until

PROMETHEUS = shutil.which("prometheus")
pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")
DEPLOY = ROOT / "deploy" / "prometheus"
LIMIT = 1_000_000
LONG = {"PaychanUnavailable"}
"""They look at the last five minutes, so they do not cease at once."""

STRANGER = PrivateKey(b"\7" * 32)


class Prometheus:
    """A running one."""

    def __init__(self, port: int) -> None:
        self._port = port

    def _get(self, path: str) -> dict:
        client = Client(self._port)
        try:
            answer = client.request("GET", path)
            return answer.json["data"] if answer.status == 200 else {}
        except OSError:
            return {}
        finally:
            client.close()

    def value(self, query: str) -> float | None:
        found = self._get(f"/api/v1/query?query={urllib.parse.quote(query)}").get("result", ())
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> dict[str, list[dict]]:
        found: dict[str, list[dict]] = {}
        for alert in self._get("/api/v1/alerts").get("alerts", ()):
            if alert["state"] == "firing":
                found.setdefault(alert["labels"]["alertname"], []).append(alert["labels"])
        return found

    def fires(self, *names: str) -> None:
        """Wait until all of these fire."""
        wait_until(lambda: set(names) <= set(self.firing()), 20, f"firing {names}, not only {set(self.firing())}")

    def is_quiet(self, *names: str) -> None:
        """Wait until none of these fires any more."""
        wait_until(lambda: not set(names) & set(self.firing()), 20, f"the end of {names}")


@contextmanager
def prometheus(directory: Path, target: int) -> Iterator[Prometheus]:
    rules = re.sub(r"\n +for: .*", "", (DEPLOY / "alerts.yml").read_text())
    (directory / "alerts.yml").write_text(rules)
    config = (DEPLOY / "prometheus.yml").read_text().replace("15s", "1s").replace("127.0.0.1:9108", f"127.0.0.1:{target}")
    (directory / "prometheus.yml").write_text(config)
    port = free_port()
    arguments = [f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data", "--log.level=error"]
    process = subprocess.Popen([PROMETHEUS, *arguments, f"--web.listen-address=127.0.0.1:{port}"], cwd=directory)
    try:
        found = Prometheus(port)
        wait_until(lambda: found.value('up{job="paychan"}') == 1, 20, "the first scrape")
        yield found
    finally:
        process.terminate()
        process.wait(30)


def metrics_pid(system: System) -> int:
    return next(pid for pid, parent, line in processes() if parent == system.process.pid and "-m paychan.metrics " in line)


@contextmanager
def killed(system: System, prom: Prometheus, pid: int, alerts: tuple[str, ...]) -> Iterator[None]:
    """End a process of the system while its supervisor is stopped, so that it stays away; the alerts fire, and cease afterwards."""
    os.kill(system.process.pid, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        yield
        prom.fires(*alerts)
    finally:
        os.kill(system.process.pid, signal.SIGCONT)
    prom.is_quiet(*(set(alerts) - LONG))


def test_a_real_prometheus_counts_what_the_client_counts_and_hears_of_every_fault(tmp_path):
    scraper = Scraper(free_port())
    changes = listening(scraper.port)
    changes["server.toml"]["[chain]"] = f"[exposure]\nunsettled_value_max = {LIMIT}\n\n[chain]"
    with running(tmp_path, workers=2, changes=changes) as system:
        wait_until(lambda: shows_all(scraper, 2), 20, "serving the metrics")
        with prometheus(tmp_path, scraper.port) as prom:
            payer = refuse_everything(system, prom)
            take_payments(system, prom, payer)
            come_near_limits(system, prom)
            lose_processes(system, prom, payer)


def refuse_everything(system: System, prom: Prometheus):
    """Payments come, and all are refused."""
    prom.is_quiet("PaychanMetricsGone")  # it fired until the first scrape
    assert not prom.firing()
    payer = system.payer("prometheus")
    assert payer.open().status == 201
    bad = sign_payment(payer.sender.terms, payer.sender.change_value - 1, STRANGER)
    query = 'sum(paychan_payments_total{outcome="bad_signature"})'
    for sent in (1, 200):
        for _ in range(sent):
            assert payer.client.request("PUT", payer.sender.channel_target(bad)).code in ("bad_signature", "too_many_failures")
        wait_until(lambda: (prom.value(query) or 0) > 0, 20, "a scrape of the first refusal")
    prom.fires("PaychanNothingAccepted")
    return payer


def take_payments(system: System, prom: Prometheus, payer) -> None:
    """The sums are the client's, exactly."""
    for _ in range(300):
        assert payer.pay(1).status == 200
        assert payer.resend().status == 200
    for outcome in ("accepted", "repeated"):
        query = f'sum(paychan_payments_total{{outcome="{outcome}"}})'
        wait_until(lambda query=query: prom.value(query) == 300, 20, f"all that were {outcome}")
    assert prom.value('sum(paychan_opens_total{outcome="opened"})') == 1
    assert prom.value("paychan_received_satoshi_total") == 300 + 100_000
    assert prom.value("sum(paychan_store_groups_total)") > 0
    assert prom.value("histogram_quantile(0.5, sum by (le) (paychan_payment_seconds_bucket))") < 60
    assert prom.value("paychan_build_info") == 1
    prom.is_quiet("PaychanNothingAccepted")


def come_near_limits(system: System, prom: Prometheus) -> None:
    assert "PaychanExposureNearLimit" not in prom.firing() and "PaychanValueNearExpiry" not in prom.firing()
    assert system.payer("prometheus large").open(LIMIT * 85 // 100 - 100_000).status == 201
    prom.fires("PaychanExposureNearLimit")


def lose_processes(system: System, prom: Prometheus, payer) -> None:
    signer, store = system.child_pid("signer"), system.child_pid("store")
    with killed(system, prom, signer, ("PaychanSignerAway", "PaychanNotReady", "PaychanUnavailable")):
        wait_until(lambda: payer.resend().status == 503, 20, "noticing that the signer is away")
        for _ in range(100):
            assert payer.resend().code == "signer_unavailable"
    with killed(system, prom, store, ("PaychanStoreAway",)):
        wait_until(lambda: payer.resend().status == 503, 20, "noticing that the store is away")
    with killed(system, prom, metrics_pid(system), ("PaychanMetricsGone",)):
        pass
    with killed(system, prom, system.child_pid("server"), ("PaychanNoWorkers",)):  # its workers end with it
        pass
    assert json.loads(system.client().request("GET", "/healthz").body)["alive"]
