"""Aim: a real Prometheus reads a real system under load, its sums are the client's, and real faults make the alerts fire.

Method: prometheus, where it is installed, with the shipped alerts, their times shortened. `python -m tests.campaign.alerts` makes
every alert fire; here are a few that are quick, and that its judge sees an alert that never fires, one that always does, one that
tells of something else, and a fault that is none.
"""

import re
from contextlib import contextmanager, nullcontext

import pytest

from tests.campaign.alert_scenes import Fault, processes_scene
from tests.campaign.alerts import FAULTS, Trial
from tests.prometheus import NAMES, RULES, WAITED, needed, prometheus, shortened

MINUTE_SECONDS = 1.0
QUICK = ("the store is killed", "the metrics' process is killed")
SOME = ("PaychanSignerAway", "PaychanUnavailable")
"""Of what a killed signer makes fire; the others are then strange."""

PATIENCE_SECONDS = 20.0
IMPATIENCE_SECONDS = 0.6
"""For what will not come."""

BROKEN = {
    "expr: >-\n          paychan_signer_up == 0": "expr: >-\n          paychan_signer_up > 1",  # never fires
    "paychan_uneconomic_channels > 0": "paychan_uneconomic_channels >= 0",  # always fires
}


def broken() -> str:
    rules = RULES
    for right, wrong in BROKEN.items():
        assert rules.count(right) == 1, right
        rules = rules.replace(right, wrong)
    return shortened(MINUTE_SECONDS, rules)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with processes_scene(tmp_path_factory.mktemp("alerts")) as scene:
        yield scene


@pytest.fixture(scope="module")
def prom(scene):
    with prometheus(scene.directory / "prometheus", scene.scraper.port, shortened(MINUTE_SECONDS)) as prom:
        yield prom


@needed
def test_a_real_prometheus_counts_what_the_client_counts(scene, prom):
    payer = scene.payer("counted", 100_000)
    with scene.load.resting():
        for _ in range(100):
            assert payer.pay(1).status == 200
            assert payer.resend().status == 200
        prom.value_is('sum(paychan_payments_total{outcome="repeated"})', 100)
        taken = 'sum(paychan_payments_total{outcome="accepted"}) - sum(paychan_payments_total{outcome="repeated"})'
        prom.value_is(taken, scene.load.answered)
        opened = prom.value('sum(paychan_opens_total{outcome="opened"})')
        prom.value_is("paychan_received_satoshi_total", opened * 100_000 + scene.load.answered + 100)
    assert prom.value("sum(paychan_store_groups_total)") > 0
    assert prom.value("histogram_quantile(0.5, sum by (le) (paychan_payment_seconds_bucket))") < 60
    assert prom.value("paychan_build_info") == 1


@needed
def test_no_alert_fires_while_nothing_is_wrong_and_real_faults_are_told(scene, prom):
    trial = Trial(scene, prom, PATIENCE_SECONDS)
    trial.is_well(5)
    for fault in FAULTS:
        if fault.name in QUICK:
            trial.prove(fault)


@needed
def test_the_judge_sees_alerts_that_are_wrong_and_faults_that_are_none(scene, prom):
    signer = next(fault for fault in FAULTS if fault.name == "the signer is killed")
    with prometheus(scene.directory / "broken", scene.scraper.port, broken()) as wrong:
        wrong.fires("PaychanUneconomicChannels")
        for judge in (lambda: Trial(scene, wrong, IMPATIENCE_SECONDS).is_well(1), lambda: wrong.stays_quiet(2)):
            with pytest.raises(AssertionError, match="PaychanUneconomicChannels"):
                judge()

        @contextmanager
        def make(scene):
            with signer.make(scene):
                yield  # until the right alerts fire
                with pytest.raises(AssertionError, match="PaychanSignerAway should fire"):
                    wrong.fires("PaychanSignerAway", seconds=0.2)

        with pytest.raises(AssertionError, match="PaychanNotReady.* besides"):
            Trial(scene, prom, PATIENCE_SECONDS).prove(signer._replace(make=make, also=("PaychanUnavailable",), fires=SOME))
    none = Fault("processes", "nothing", lambda _: nullcontext(), ("PaychanStoreAway",))
    with pytest.raises(AssertionError, match="PaychanStoreAway should fire"):
        Trial(scene, prom, IMPATIENCE_SECONDS).prove(none)


def test_every_alert_has_a_fault_and_only_times_are_shortened():
    """And the faults' tables have no alert that there is none of."""
    fired = {name for fault in FAULTS for name in fault.fires}
    assert fired == set(NAMES)
    assert {name for fault in FAULTS for name in fault.also} <= set(NAMES)
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)

    def timeless(rules: str) -> str:
        return re.sub(r"(?<=for: )\d+[smh]$|(?<=\[)\d+[smh](?=\])", "", rules, flags=re.M)

    expected = timeless(RULES)
    for shipped, waited in WAITED.items():
        expected = expected.replace(shipped, waited)
    assert timeless(shortened(3.0)) == expected
