"""Aim: queries are read strictly, and trouble is told with what to do. Method: the pure parts of the views with values
written out."""

import re
from pathlib import Path

import pytest

from paychan.core.channel import Phase
from paychan.core.errors import Rejection
from paychan.metrics import families
from paychan.operator.books import Day, Row
from paychan.operator.views import trouble
from paychan.operator.views.money import DAYS_SHOWN, days
from paychan.operator.views.queries import read_limit, read_query
from paychan.operator.views.settlements import trouble_of

NOW = 1_800_000_000
DOCS = Path(__file__).parents[3] / "docs"


def samples(**values):
    """Return families as the counts have them: NAME=value, or NAME={label value: value} of its one label."""
    labels = {family.name: family.label for family in families.FAMILIES} | {"paychan_processes": "role"}
    found = {"paychan_processes": [{"labels": {"role": "worker"}, "value": 1}]}
    for name, value in values.items():
        pairs = value.items() if isinstance(value, dict) else [("", value)]
        found[f"paychan_{name}"] = [{"labels": {labels[f"paychan_{name}"]: key} if key else {}, "value": n} for key, n in pairs]
    return trouble.Figures(found)


def codes(figures):
    return [found.code for found in trouble.of_figures(figures, NOW)]


def test_a_healthy_system_has_no_trouble():
    assert codes(samples(shards=256, owned_shards=256, tip_timestamp_seconds=NOW - 600, ready=1)) == []


def test_without_a_worker_nothing_else_is_said():
    assert codes(samples(processes={"worker": 0}, chain_doubtful=1)) == ["no_workers"]


@pytest.mark.parametrize(
    ("figures", "code"),
    [
        ({"workers_not_ready": {"signer_unavailable": 2, "overloaded": 0}}, "not_ready.signer_unavailable"),
        ({"worker_silence_seconds": 31}, "worker_silent"),
        ({"stopped_shards": 1}, "shard_stopped"),
        ({"shards": 256, "owned_shards": 0}, "no_shards"),
        ({"waiting_requests": 10_001}, "queue_grows"),
        ({"chain_doubtful": 1}, "chain_doubtful"),
        ({"tip_timestamp_seconds": NOW - 7201}, "tip_old"),
        ({"clock_doubtful": 1}, "clock_doubtful"),
        ({"fee_estimate_missing": 1}, "no_fee_estimate"),
        ({"certificate_end_timestamp_seconds": NOW + 86_400}, "certificate_ends"),
        ({"value_at_risk_satoshi": {"1h": 0, "3h": 1}}, "value_near_expiry"),
        ({"unsettled_value_satoshi": 81, "unsettled_value_limit_satoshi": 100}, "exposure_near_limit"),
        ({"settlements_total": {"settled": 5, "lost": 1}}, "settlement_lost"),
        ({"settlements_total": {"settled_older": 1}}, "settlement_lost"),
        ({"uneconomic_channels": 1}, "uneconomic"),
    ],
    ids=str,
)
def test_each_trouble_is_told_with_what_to_do(figures, code):
    labelled = {"worker_silence_seconds": ""}
    if figures.keys() & labelled.keys():
        found = list(trouble.of_figures(trouble.Figures({
            "paychan_processes": [{"labels": {"role": "worker"}, "value": 1}],
            "paychan_worker_silence_seconds": [{"labels": {}, "value": 31}],
        }), NOW))  # fmt: skip
    else:
        found = list(trouble.of_figures(samples(**figures), NOW))
    assert [one.code for one in found] == [code]
    (one,) = found
    assert one.what.endswith((".", "?")) and one.do.endswith((".", "?"))
    document, _, heading = one.see.partition("#")
    headings = re.findall(r"(?m)^#+ (.+)$", (DOCS / document).read_text())
    assert not heading or heading in [re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-") for name in headings]


@pytest.mark.parametrize(
    ("shards", "is_urgent", "says"), [(0, False, "Others serve what it served."), (7, True, "Nobody serves 7 of its shards yet.")]
)
def test_a_silent_store_is_trouble_and_urgent_while_nobody_serves_its_shards(shards, is_urgent, says):
    alive = {"name": "a", "life": "alive", "unmoved_seconds": 0.1, "shards": 249}
    lost = {"name": "c", "life": "silent", "unmoved_seconds": 37.0, "shards": shards}
    (one,) = trouble.of_stores([alive, lost])
    assert (one.code, one.is_urgent) == ("store_silent", is_urgent) and " c " in one.what and one.what.endswith(says)
    assert list(trouble.of_stores([alive, {**lost, "life": "unknown"}, {**lost, "unmoved_seconds": 86_400.0}])) == []


def row(phase, waited=0, left=86_400, confirmations=None):
    return Row(bytes(36), phase, 10, 5, 0, NOW + left, NOW - 99, NOW - waited, confirmations=confirmations)


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (row(Phase.CLOSING, 900), ""),
        (row(Phase.CLOSING, 901), "not_signed"),
        (row(Phase.SIGNED, 901), "not_published"),
        (row(Phase.BROADCAST, 901), ""),
        (row(Phase.BROADCAST, 6 * 3600 + 1, confirmations=0), "not_mined"),
        (row(Phase.BROADCAST, 6 * 3600 + 1, confirmations=1), ""),
        (row(Phase.BROADCAST, 6 * 3600 + 1, confirmations=None), ""),
        (row(Phase.BROADCAST, left=3600, confirmations=0), "expires_soon"),
        (row(Phase.BROADCAST, left=3600, confirmations=1), ""),
        (row(Phase.CLOSING, left=-5), "expires_soon"),
    ],
)
def test_what_is_wrong_with_a_settlement(one, code):
    assert trouble_of(one, NOW) == code
    assert not code or code in trouble.WHAT


def test_days_without_anything_stand_between_others_and_old_ones_are_left_out():
    today = NOW // 86_400
    shown = days({today - 3: Day(opened=1), today: Day(settled=2, received=10, arrived=7, fees=2, lost=1)}, NOW)
    assert [day["opened"] for day in shown] == [1, 0, 0, 0]
    assert shown[-1] == {
        "day": "2027-01-15", "opened": 0, "settled": 2, "lost": 0, "received_satoshi": 10, "settled_satoshi": 7,
        "fees_satoshi": 2, "lost_satoshi": 1,
    }  # fmt: skip
    assert len(days({1: Day(opened=1)}, NOW)) == DAYS_SHOWN


@pytest.mark.parametrize("query", ["limit", "limit=1&limit=2", "colour=red", "limit=%FF", "&", "a=1;b=2", "limit=1&" * 20])
def test_another_query_is_refused(query):
    with pytest.raises(Rejection) as refused:
        read_query(query, "limit")
    assert refused.value.code == "invalid_query"


@pytest.mark.parametrize("text", ["0", "501", "-1", "+5", "1.5", "１", "0x10", " 5", "1" * 4300])
def test_another_limit_is_refused(text):
    with pytest.raises(Rejection):
        read_limit(text)
    assert (read_limit(""), read_limit("1"), read_limit("500")) == (100, 1, 500)
