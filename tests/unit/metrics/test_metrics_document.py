"""Aim: docs/METRICS.md explains every metric that there is, and no other."""

import re
from pathlib import Path

from paychan.metrics import exposition, families
from paychan.metrics.file import Role, Slot

DOCUMENT = (Path(__file__).parents[3] / "docs" / "METRICS.md").read_text()
NAME = re.compile(r"`(paychan_[a-z_]+)`")


def test_the_document_has_a_row_for_each_metric():
    rows = [line.split("|")[1] for line in DOCUMENT.splitlines() if line.startswith("| `paychan_")]
    told = [name for row in rows for name in NAME.findall(row)]
    assert sorted(told) == sorted(exposition.names())


def test_the_text_has_each_metric_once_with_its_help():
    cells = [0] * 2048
    cells[families.ROLE_AT], cells[families.BEAT_AT] = Role.WORKER, 1
    text = exposition.expose([Slot(cells, True)], {}).decode()
    assert re.findall(r"^# TYPE (\S+) ", text, re.M) == re.findall(r"^# HELP (\S+) \S", text, re.M)
    told = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert told == exposition.names()


def test_each_label_of_the_text_is_explained():
    """Of labels with few values each; codes are in PROTOCOL.md and OPERATING.md."""
    words = set(re.findall(r"`([a-z_0-9]+)`", DOCUMENT)) | set(re.findall(r"\b(\d+h)\b", DOCUMENT))
    for family in families.FAMILIES:
        if family.label and family.label != "code" and family is not families.SIGNER_REQUESTS:
            assert set(family.values) - family.sparse <= words, family.name
    assert {*families.DOORS.values(), *families.PAID} <= words


def test_openmetrics_and_machines():
    cells = [0] * 2048
    text = exposition.expose([Slot(cells, False)], {"network": "test"}, 'odd"\\name', is_open=True).decode()
    assert text.endswith("# EOF\n") and "# TYPE paychan_payments counter\n" in text
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all('{machine="odd\\"\\\\name"' in line for line in samples)
