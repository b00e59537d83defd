"""Aim: alerts and dashboard ask for what there is; each alert fires on what it is for, and tells where to read on.

Method: promtool, Prometheus' own checker, where it is installed; and their texts are read.
"""

import json
import re
import shutil
import subprocess
from itertools import combinations
from pathlib import Path

import pytest

from paychan.metrics import exposition, families
from paychan.metrics.file import Role, Slot

ROOT = Path(__file__).parents[3]
RULES, GRAFANA = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana"
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
ALERTS = (RULES / "alerts.yml").read_text()
TESTS = (RULES / "alerts_test.yml").read_text()
DASHBOARD = json.loads((GRAFANA / "paychan.json").read_text())
PANELS = DASHBOARD["panels"]


def promtool(*arguments: str, text: str = "") -> None:
    done = subprocess.run([PROMTOOL, *arguments], input=text, capture_output=True, text=True, cwd=RULES, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def unknown_names(expression: str) -> set[str]:
    """Return the metrics in an expression that are not exposed."""
    shown = set()
    for name, kind in exposition.names().items():
        shown |= {f"{name}{part}" for part in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    return set(re.findall(r"\bpaychan_\w+", expression)) - shown


def unknown_values(expression: str) -> set[str]:
    """Return the label values in an expression, outcomes and the like, that no sample ever has."""
    told = {value for family in families.FAMILIES for value in family.values} | set(families.OUTCOMES.values())
    told |= {*families.DOORS.values(), "worker", "store", "paychan"}
    asked = set()
    for label, text in re.findall(r'(\w+)[=!]~?"([^"]+)"', expression):
        if label != "instance":
            asked |= {value for value in text.split("|") if value.isidentifier() or value[0].isdigit()}
    return asked - told


@needs_promtool
def test_promtool_takes_the_rules_and_the_configuration():
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_each_alert_fires_on_what_it_is_for_and_not_on_what_is_well():
    promtool("test", "rules", "alerts_test.yml")


@needs_promtool
def test_promtool_takes_what_is_exposed():
    cells = [1] * 2048
    cells[families.ROLE_AT] = Role.WORKER
    promtool("check", "metrics", text=exposition.expose([Slot(cells, True)], {"network": "test"}, "one").decode())


def test_every_alert_is_tested_both_ways_and_asks_for_what_there_is():
    names = re.findall(r"- alert: (\w+)", ALERTS)
    assert len(names) == len(set(names)) >= 25
    for name in names:
        assert len(re.findall(rf"alertname: {name}$", TESTS, re.M)) == 2, name  # it fires, and when all is well it does not
    expressions = re.findall(r"expr: >-\n\s+(.+)", ALERTS)
    assert len(expressions) == len(names)
    for expression in expressions:
        assert not unknown_names(expression) and not unknown_values(expression), expression


def anchors(document: Path) -> set[str]:
    """Return what a link into a document can name after `#`."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_alert_tells_where_to_read_on():
    books = re.findall(r"runbook: (\S+)", ALERTS)
    assert len(books) == ALERTS.count("- alert:")
    for book in books:
        document, _, anchor = book.partition("#")
        assert (ROOT / document).is_file() and (not anchor or anchor in anchors(ROOT / document)), book


def test_the_operators_document_says_of_each_alert_what_to_do():
    """In one table those that wake somebody, in the other those that do not; each runbook leads there."""
    _, _, chapter = (ROOT / "docs" / "OPERATING.md").read_text().partition("\n## Alerts\n")
    chapter, _, _ = chapter.partition("\n## ")
    tables = [re.findall(r"^\| `(Paychan\w+)` \| \S", part, re.M) for part in chapter.split("until the morning")]
    severities = re.findall(r"- alert: (\w+)\n(?:.*\n)*?\s+severity: (\w+)", ALERTS)
    told = [sorted(name for name, severity in severities if severity == wanted) for wanted in ("page", "warn")]
    assert [sorted(table) for table in tables] == told
    assert set(re.findall(r"runbook: (\S+)", ALERTS)) == {"docs/OPERATING.md#alerts"}


# --- the dashboard ---


def queries() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel.get("targets", ())]


def test_the_dashboard_asks_for_what_there_is_and_shows_nearly_all_of_it():
    for query in queries():
        assert not unknown_names(query) and not unknown_values(query), query
    asked = {re.sub(r"_(bucket|sum|count)$", "", name) for query in queries() for name in re.findall(r"\bpaychan_\w+", query)}
    assert exposition.names().keys() - asked == set()


def test_the_dashboard_is_one_that_grafana_takes():
    assert isinstance(DASHBOARD["schemaVersion"], int) and DASHBOARD["uid"] and DASHBOARD["title"]
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(PANELS))) <= variables
    for panel in PANELS:
        assert panel["type"] in ("row", "timeseries", "stat", "table") and panel["title"]
        place = panel["gridPos"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24 and place["h"] > 0
        if panel["type"] != "row":
            assert panel["targets"] and panel["fieldConfig"]["defaults"]["unit"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert not [pair for pair in combinations([panel["gridPos"] for panel in PANELS], 2) if _overlap(*pair)]


def _overlap(a: dict, b: dict) -> bool:
    return all(a[at] < b[at] + b[size] and b[at] < a[at] + a[size] for at, size in (("x", "w"), ("y", "h")))


@needs_promtool
def test_prometheus_parses_every_query(tmp_path):
    rules = [{"record": f"query:{number}", "expr": query.replace("$instance", ".*")} for number, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML, too
    promtool("check", "rules", str(file))
